// The lower half: problems and what was answered. The list holds only the rows that are on the screen.

const HEIGHT = 54;  // of a row, as in page.css
const SHORT = {correct: '✓', incorrect: '✗', no_answer: '∅', gold_unparsed: 'g', timeout: 't', crash: 'c'};
const CUT = 'length';
const VERDICTS = {
  '': ['any verdict', () => true],
  ...Object.fromEntries(DATA.verdicts.map(verdict => [verdict, [verdict.replace('_', ' '), each => each.verdict === verdict]])),
  cut: ['cut off', each => each.stop === CUT],
  mathVerify: ['Math-Verify disagrees', each => each.mathVerify !== null && (each.mathVerify === 'correct') !== (each.verdict === 'correct')],
};
const right = (samples, run) => {
  const own = samples.filter(each => each.run === run);
  return own.length ? own.filter(each => each.verdict === 'correct').length / own.length : null;
};
const AGREEMENT = {
  '': ['no matter', () => true],
  differ: ['they disagree', (a, b) => a !== b],
  first: ['only A is right', (a, b) => a > b],
  second: ['only B is right', (a, b) => b > a],
  neither: ['both are wrong', (a, b) => a === 0 && b === 0],
  both: ['both are right', (a, b) => a === 1 && b === 1],
};

const state = {search: '', benchmark: '', run: '', verdict: '', first: 0, second: 1, agreement: '', found: [], current: -1};
const answers = DATA.problems.map(() => []);
for (const sample of SAMPLES) answers[sample.problem].push(sample);
const promptOf = problem => answers[problem][0] && answers[problem][0].prompt !== null ? DATA.texts[answers[problem][0].prompt] : '';

function matches(problem, pattern) {
  const given = DATA.problems[problem], samples = answers[problem];
  if (state.benchmark && given.benchmark !== state.benchmark) return false;
  const asked = state.run === '' ? samples : samples.filter(each => each.run === Number(state.run));
  if (!asked.some(VERDICTS[state.verdict][1])) return false;
  if (state.agreement) {
    const [a, b] = [right(samples, state.first), right(samples, state.second)];
    if (a === null || b === null || !AGREEMENT[state.agreement][1](a, b)) return false;
  }
  if (!pattern) return true;
  return pattern.test(given.id) || pattern.test(given.gold) ||
    asked.some(each => pattern.test(each.completion) || (each.answer !== null && pattern.test(each.answer)) ||
      (each.prompt !== null && pattern.test(DATA.texts[each.prompt])));
}

function filter() {
  const escaped = state.search.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const pattern = escaped ? new RegExp(escaped, 'iu') : null;
  state.found = DATA.problems.map((_, index) => index).filter(index => matches(index, pattern));
  const samples = state.found.reduce((sum, problem) => sum + answers[problem].length, 0);
  document.getElementById('found').textContent =
    `${count(state.found.length)} of ${count(DATA.problems.length)} problems, ${count(samples)} samples`;
  list.scrollTop = 0;
  rail.style.height = state.found.length * HEIGHT + 'px';
  select(state.found.length ? 0 : -1);
}

const list = document.getElementById('list');
const rail = element('ol');

function drawList() {
  const from = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 5);
  const to = Math.min(state.found.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 5);
  const held = rail.contains(document.activeElement) ? document.activeElement.dataset.at : null;
  rail.replaceChildren(...Array.from({length: Math.max(0, to - from)}, (_, index) => row(from + index)));
  if (held !== null) rail.querySelector(`[data-at="${Number(held)}"]`)?.focus({preventScroll: true});
}

function row(at) {
  const problem = state.found[at], given = DATA.problems[problem], samples = answers[problem];
  // A few marks tell more than a hundred.
  const marks = samples.slice(0, 12).map(each => element('span', {class: 'verdict ' + each.verdict,
    title: `${DATA.runs[each.run].label}: ${each.verdict}`, 'aria-label': `${DATA.runs[each.run].label}: ${each.verdict}`,
    role: 'img', text: SHORT[each.verdict] ?? '?'}));
  const button = element('button', {type: 'button', 'data-at': at, 'aria-current': at === state.current ? 'true' : 'false',
    on: {click: () => select(at)}},
    element('span', {class: 'first'}, element('span', {class: 'where'}, given.benchmark + ' '), ...shown(given.id.slice(0, 200))),
    element('span', {class: 'first'}, ...marks, samples.length > 12 ? `and ${samples.length - 12} more` : null));
  const item = element('li', {'aria-setsize': state.found.length, 'aria-posinset': at + 1}, button);
  item.style.top = at * HEIGHT + 'px';
  return item;
}

function select(at, into = false) {
  state.current = at;
  if (at >= 0) {
    const top = at * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
  }
  drawList();
  drawDetail();
  if (into) document.getElementById('detail').focus({preventScroll: true});
}

function move(step) {
  const at = state.current + step;
  if (at >= 0 && at < state.found.length) select(at, true);
}

function drawDetail() {
  const into = document.getElementById('detail');
  if (state.current < 0) { into.replaceChildren(element('p', {class: 'note', text: 'Nothing matches.'})); return; }
  const problem = state.found[state.current], given = DATA.problems[problem];
  const step = (label, by) => element('button', {type: 'button', disabled: state.found[state.current + by] === undefined ? '' : null,
    text: label, on: {click: () => move(by)}});
  const parts = [
    element('div', {class: 'move'}, step('Previous', -1), step('Next', 1),
      element('span', {text: `${count(state.current + 1)} of ${count(state.found.length)}`})),
    element('h3', {}, given.benchmark + ' ', ...shown(given.id.slice(0, 500))),
    pairs([['gold answer', given.gold], ['unit', given.unit], ['error allowed', given.error]])];
  const prompts = new Set(answers[problem].map(each => each.prompt));
  const shared = prompts.size === 1;
  if (shared && promptOf(problem)) parts.push(element('h4', {class: 'note', text: 'Prompt'}), passage(promptOf(problem), 'Prompt'));
  for (const each of answers[problem]) parts.push(answer(each, shared));
  into.replaceChildren(...parts);
}

function pairs(list) {
  const made = element('dl');
  for (const [name, value] of list) {
    if (value === null || value === undefined || value === '') continue;
    made.append(element('dt', {text: name}), element('dd', {}, ...shown(String(value).slice(0, 2000))));
  }
  return made;
}

// Of a graded answer how it was found and compared; of a label task the logits of the words.
function readingOf(sample) {
  if (sample.reading === null) return [];
  let read;
  try { read = JSON.parse(DATA.texts[sample.reading]); } catch { read = {reading: DATA.texts[sample.reading]}; }
  if (typeof read !== 'object' || read === null) return [['reading', String(read)]];
  return Object.entries(read).map(([name, value]) => [name, Array.isArray(value) ? value.join('; ') : typeof value === 'object' ? JSON.stringify(value) : value]);
}

function answer(sample, promptShown) {
  const label = DATA.runs[sample.run].label;
  const several = answers[sample.problem].filter(each => each.run === sample.run).length > 1;
  const made = element('section', {class: 'answer', 'aria-label': `${label}: ${sample.verdict}`},
    element('h4', {}, named(sample.run), several ? ` #${sample.number} ` : ' ',
      element('span', {class: 'verdict ' + sample.verdict, text: sample.verdict.replace('_', ' ')}),
      sample.stop === CUT ? element('span', {class: 'verdict', text: 'cut off'}) : null));
  if (!promptShown && sample.prompt !== null) {
    made.append(element('details', {}, element('summary', {text: 'its prompt'}), passage(DATA.texts[sample.prompt], `Prompt of ${label}`)));
  }
  made.append(passage(sample.completion, `Completion of ${label}`),
    pairs([['answer as read', sample.answer ?? 'none'], ...readingOf(sample), ['Math-Verify says', sample.mathVerify],
      ['tokens', sample.tokens === null ? null : count(sample.tokens)], ['ended by', sample.stop]]));
  return made;
}

function choice(label, values, name, number = false) {
  const made = element('select', {'data-filter': name, on: {change: () => {
    state[name] = number ? Number(made.value) : made.value;
    filter();
  }}}, ...values.map(([value, text]) => element('option', {value, text: plain(text)})));
  made.value = String(state[name]);
  return element('label', {text: label}, made);
}

function showSamples() {
  if (!SAMPLES.length) return;
  section('samples');
  list.append(rail);
  let waiting = null;
  const search = element('input', {type: 'search', id: 'search', placeholder: 'id, prompt, completion, answer', autocomplete: 'off',
    on: {input: () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { state.search = search.value; filter(); }, 150);
    }}});
  const filters = document.getElementById('filters');
  filters.addEventListener('submit', event => event.preventDefault());
  const benchmarks = [...new Set(DATA.problems.map(each => each.benchmark))];
  const runs = DATA.runs.map((run, index) => [String(index), run.label]);
  filters.append(element('label', {text: 'Search'}, search));
  if (benchmarks.length > 1) filters.append(choice('Benchmark', [['', 'all'], ...benchmarks.map(each => [each, each])], 'benchmark'));
  if (runs.length > 1) filters.append(choice('Run', [['', 'any run'], ...runs], 'run'));
  filters.append(choice('Verdict', Object.entries(VERDICTS).map(([value, [text]]) => [value, text]), 'verdict'));
  if (runs.length > 1) {
    filters.append(choice('A', runs, 'first', true), choice('B', runs, 'second', true),
      choice('A and B', Object.entries(AGREEMENT).map(([value, [text]]) => [value, text]), 'agreement'));
  }
  list.addEventListener('scroll', drawList, {passive: true});
  window.addEventListener('resize', drawList);
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === 'j') move(1);
    else if (event.key === 'k') move(-1);
    else if (event.key === '/') { event.preventDefault(); search.focus(); } else return;
  });
  filter();
}

function chooseTheme() {
  const button = document.getElementById('theme'), root = document.documentElement;
  const set = dark => {
    root.dataset.theme = dark ? 'dark' : 'light';
    button.setAttribute('aria-pressed', String(dark));
  };
  const system = matchMedia('(prefers-color-scheme: dark)');
  set(system.matches);
  system.addEventListener('change', event => set(event.matches));
  button.addEventListener('click', () => set(root.dataset.theme !== 'dark'));
}

chooseTheme();
const made = DATA.runs.length === 1 ? DATA.runs[0].name : `${DATA.runs.length} runs`;
document.title = `Report: ${plain(made)}`;
document.getElementById('subtitle').append(...shown(`${made}; ${count(SAMPLES.length)} samples; ladder-side-tuning ${DATA.version}` +
  (DATA.left_out.length ? `; left out: ${DATA.left_out.join('; ')}` : '')));
showScores();
showTests();
showLengths();
showTraining();
showSettings();
showSamples();
