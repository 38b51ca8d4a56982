// What the page is built with. Everything that comes from data becomes a text node: nothing here reads markup.

const DATA = JSON.parse(document.getElementById('data').textContent);
const COLUMNS = ['problem', 'run', 'number', 'verdict', 'answer', 'tokens', 'stop', 'mathVerify', 'prompt', 'reading',
  'completion'];
const SAMPLES = DATA.samples.map(row => Object.fromEntries(COLUMNS.map((name, index) => [name, row[index]])));
const COLOURS = 8;
const PIECE = 20000;  // characters that are shown of a long text at once
const MORE = 100000;  // and with every wish for more
// Signs that are not seen and change what is: controls, marks of direction, signs without width.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|[\u{e0000}-\u{e007f}]/gu;

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === 'on') for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (key === 'text') made.textContent = String(value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, String(value));
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'text') made.textContent = String(value);
    else made.setAttribute(key, String(value));
  }
  made.append(...children);
  return made;
}

// The text with unseen signs named, as nodes.
function shown(text) {
  const nodes = [];
  let after = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (found.index > after) nodes.push(document.createTextNode(text.slice(after, found.index)));
    const code = 'U+' + found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
    nodes.push(element('span', {class: 'mark', title: 'a sign that is not seen', text: code}));
    after = found.index + found[0].length;
  }
  if (after < text.length) nodes.push(document.createTextNode(text.slice(after)));
  return nodes;
}

function plain(text) {
  return text.replace(UNSEEN, found => '⟨U+' + found.codePointAt(0).toString(16).toUpperCase().padStart(4, '0') + '⟩');
}

// A text of any length: the beginning, a note, and more when it is asked for.
function passage(text, label) {
  const body = element('pre', {tabindex: '0', 'aria-label': label});
  const box = element('div', {}, body);
  let end = Math.min(text.length, PIECE);
  body.append(...shown(text.slice(0, end)));
  if (end === text.length) return box;
  const note = element('span', {class: 'note'});
  const more = element('button', {type: 'button', on: {click: () => {
    const next = Math.min(text.length, end + MORE);
    body.append(...shown(text.slice(end, next)));
    end = next;
    tell();
  }}});
  const cut = element('p', {class: 'cut'}, more, ' ', note);
  function tell() {
    if (end === text.length) { cut.remove(); return; }
    note.textContent = `${count(end)} of ${count(text.length)} characters are shown.`;
    more.textContent = `Show ${count(Math.min(MORE, text.length - end))} more`;
  }
  tell();
  box.append(cut);
  return box;
}

const count = number => number.toLocaleString('en');
const percent = (share, digits = 1) => share === null || share === undefined ? '–' : (100 * share).toFixed(digits) + '%';
const points = share => (share >= 0 ? '+' : '−') + Math.abs(100 * share).toFixed(1);
const small = p => p < 0.001 ? p.toExponential(1) : p.toFixed(3);
const bytes = number => number === null || number === undefined ? '–'
  : number >= 1e9 ? (number / 1e9).toFixed(2) + ' GB' : (number / 1e6).toFixed(0) + ' MB';
const average = number => number === null || number === undefined ? '–' : count(Math.round(number));

function named(run) {
  return element('span', {class: 'run' + run % COLOURS, title: DATA.runs[run].name},
    element('span', {class: 'swatch', 'aria-hidden': 'true'}), element('span', {class: 'name'}, ...shown(DATA.runs[run].label)));
}

// A table with a caption; `rows` of cells, which are texts or nodes. The first `left` columns are texts.
function table(caption, heads, rows, left = 1) {
  const side = index => index < left ? 'left' : '';
  const body = rows.map(({cells, kind}) => element('tr', {class: kind}, ...cells.map((cell, index) =>
    element('td', {class: side(index)}, ...(typeof cell === 'string' ? shown(cell) : [cell])))));
  return element('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption},
    element('table', {}, element('caption', {text: caption}),
      element('thead', {}, element('tr', {}, ...heads.map((head, index) =>
        element('th', {scope: 'col', class: side(index), text: head})))),
      element('tbody', {}, ...body)));
}

function section(name) {
  const found = document.getElementById(name);
  found.hidden = false;
  return found;
}
