// The upper half of the page: scores, tests, lengths, training, settings.

const SPREAD_OVER_NOTHING = 'one run';
const MANY = 12;  // settings that a page opens with
const BASELINE = 'resident set';

function spread(row) {
  if (row.std === null) return SPREAD_OVER_NOTHING + (row.greedy ? ', greedy' : '');
  return `±${(100 * row.std).toFixed(1)} (${row.n_runs} ${row.spread_over})`;
}

function showScores() {
  if (!DATA.scores.length) return;
  const into = section('scores');
  for (const benchmark of new Set(DATA.scores.map(row => row.benchmark))) {
    const rows = DATA.scores.filter(row => row.benchmark === benchmark);
    const labelled = rows.some(row => row.matthews !== undefined);
    const heads = ['evaluated', 'problems', 'Pass@1', '0 to 100%', '95% interval', 'spread', 'Math-Verify', 'cut off',
      'no answer', 'timeout', 'tokens if right', 'if not', ...(labelled ? ['MCC', 'F1', 'majority'] : [])];
    into.append(table(benchmark, heads, rows.map(row => {
      const run = row.several ? null : row.run;
      const found = row.math_verify;
      return {kind: row.several ? 'several' : '', cells: [
        run === null ? row.label : named(run), count(row.n_problems), percent(row.pass_at_1),
        whisker(row.pass_at_1, row.ci95, run), `${percent(row.ci95[0])} to ${percent(row.ci95[1])}`, spread(row),
        found ? `${percent(found.pass_at_1)}${found.disagreements ? ` (${found.disagreements} differ)` : ''}` : '–',
        percent(row.truncated_rate), percent(row.no_answer_rate), percent(row.timeout_rate),
        average(row.mean_tokens_correct), average(row.mean_tokens_incorrect),
        ...(labelled ? [row.matthews === undefined ? '–' : row.matthews.toFixed(3),
          row.f1 === undefined || row.f1 === null ? '–' : row.f1.toFixed(3), percent(row.majority)] : [])]};
    })));
    const sampled = rows.find(row => row.pass_at_k);
    if (sampled) into.append(element('p', {class: 'note', text: 'pass@k: ' + Object.entries(sampled.pass_at_k)
      .filter(([k]) => Number.isInteger(Math.log2(Number(k)))).map(([k, share]) => `${k}: ${percent(share)}`).join(', ')}));
  }
  const methods = [...new Set(DATA.scores.map(row => row.ci95_method))];
  into.append(element('p', {class: 'note', text: `Intervals: ${methods.join('; ')}. Rates are shares of all completions. ` +
    'A timeout is a completion whose grading took too long.'}));
}

function showTests() {
  if (!DATA.tests.length && !DATA.untested.length) return;
  const into = section('tests');
  if (DATA.tests.length) {
    into.append(table('Difference of the mean scores on the same problems, first minus second, in points',
      ['first', 'second', 'benchmark', 'problems', 'difference', '95% interval', 'p', 'p (Holm)', 'test', 'only first, only second'],
      DATA.tests.map(each => ({kind: '', cells: [each.first, each.second, each.benchmark, count(each.n_problems),
        points(each.difference), `${points(each.low)} to ${points(each.high)}`, small(each.p_value), small(each.p_holm), each.test,
        each.only_first === null ? '–' : `${count(each.only_first)}, ${count(each.only_second)}`]})), 3));
    into.append(element('p', {class: 'note', text: `Paired bootstrap intervals; Holm corrects for ${DATA.tests.length === 1 ? 'the one test' : `all ${DATA.tests.length} tests`} of this page. ` +
      'Runs that differ in the seed alone are one side together.'}));
  }
  const notes = [
    ...DATA.tests.flatMap(each => [
      ...(each.unpaired ? [`${each.first}, ${each.second}, ${each.benchmark}: ${each.unpaired} problems that not all have answered are left out.`] : []),
      ...each.notes.map(note => `${each.first}, ${each.second}, ${each.benchmark}: not made alike: ${note}.`)]),
    ...DATA.untested.map(each => `Not tested: ${each.first} and ${each.second}: ${each.why}`)];
  if (notes.length) {
    into.append(element('details', {open: notes.length < 4}, element('summary', {text: `${notes.length} notes`}),
      element('ul', {class: 'note'}, ...notes.map(note => element('li', {}, ...shown(note))))));
  }
}

function showLengths() {
  const groups = new Map();
  for (const sample of SAMPLES) {
    if (sample.tokens === null) continue;
    const key = `${DATA.problems[sample.problem].benchmark}\n${sample.run}`;
    if (!groups.has(key)) groups.set(key, {benchmark: DATA.problems[sample.problem].benchmark, run: sample.run, right: [], others: []});
    groups.get(key)[sample.verdict === 'correct' ? 'right' : 'others'].push(sample.tokens);
  }
  if (!groups.size) return;
  const into = section('lengths'), grid = element('div', {class: 'figures'});
  for (const {benchmark, run, right, others} of groups.values()) {
    const title = `${benchmark}, ${DATA.runs[run].label}: tokens of ${right.length} correct and ${others.length} other completions`;
    grid.append(element('figure', {}, element('figcaption', {}, named(run), ` on ${benchmark}`), lengthsChart(title, right, others)));
  }
  into.append(element('p', {class: 'note', text: 'Completions by their number of tokens: correct ones above the line, all others below it.'}), grid);
}

function showTraining() {
  const trained = DATA.runs.map((run, index) => ({index, ...run.training})).filter(each => each.curves);
  if (!trained.length) return;
  const into = section('training');
  into.append(element('ul', {class: 'legend'}, ...trained.map(each => element('li', {}, named(each.index)))));
  const lines = (name, kind) => trained.filter(each => each.curves[name].length)
    .map(each => ({run: each.index, points: each.curves[name], kind}));
  const both = [...lines('loss', 'faintly'), ...lines('eval_loss', '')];
  if (both.length) {
    into.append(element('figure', {class: 'chart'}, chart('Losses over the rows seen', 'rows seen', both),
      element('figcaption', {text: 'Validation loss (dots) and training loss (faint).' +
        (trained.some(each => each.thinned) ? ' Long curves are thinned evenly.' : '')})));
  }
  into.append(table('What training found and took', ['run', 'validation loss', 'best step', 'trained parameters', 'of the backbone',
    'tokens/s', 'seconds', 'memory: predicted', 'measured', 'measured, without what was there at the start'],
    trained.map(({index, figures, memory}) => ({kind: '', cells: [named(index),
      figures.eval_loss === null ? '–' : figures.eval_loss.toFixed(4), average(figures.best_step), average(figures.trainable_parameters),
      figures.backbone_parameters ? percent(figures.trainable_parameters / figures.backbone_parameters) : '–',
      average(figures.tokens_per_second), average(figures.wall_seconds), bytes(memory.predicted), bytes(memory.measured),
      memory.kind === BASELINE && memory.measured !== null && memory.baseline ? bytes(memory.measured - memory.baseline) : '–']}))));
  if (trained.some(each => each.memory.kind === BASELINE)) {
    into.append(element('p', {class: 'note', text: 'On a CPU the peak is the resident set of the whole process, libraries included; ' +
      'the prediction is of the model, what is trained and the step.'}));
  }
}

function showSettings() {
  const keys = [...new Set(DATA.runs.flatMap(run => Object.keys(run.settings)))];
  if (!keys.length) return;
  const into = section('settings');
  const differ = keys.filter(key => new Set(DATA.runs.map(run => run.settings[key])).size > 1);
  const alike = keys.filter(key => !differ.includes(key));
  const rows = (list, value) => list.map(key => ({kind: '', cells: [key, ...value(key)]}));
  if (DATA.runs.length > 1) {
    const caption = `${differ.length} settings in which the runs differ`;
    into.append(element('details', {open: differ.length <= MANY}, element('summary', {text: caption}),
      table(caption, ['', ...DATA.runs.map(run => run.label)],
        rows(differ, key => DATA.runs.map(run => run.settings[key] ?? '–')), 1 + DATA.runs.length)));
  }
  const shared = `${alike.length} settings${DATA.runs.length > 1 ? ' that all share' : ''}`;
  into.append(element('details', {}, element('summary', {text: shared}), table(shared, ['', 'value'], 
    rows(alike, key => [DATA.runs[0].settings[key] ?? '–']), 2)));
}
