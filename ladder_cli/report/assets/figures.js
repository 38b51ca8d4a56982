// Figures: drawn as SVG from numbers alone.

// A score with its interval on the line from 0 to 1.
function whisker(score, [low, high], run) {
  const wide = 150, at = share => 5 + share * (wide - 10);
  return drawing('svg', {viewBox: `0 0 ${wide} 16`, width: wide, height: 16, class: run === null ? 'name' : 'run' + run % COLOURS,
    role: 'img', 'aria-label': `${percent(score)}, interval ${percent(low)} to ${percent(high)}`},
    drawing('path', {class: 'axis', d: `M${at(0)} 8H${at(1)}M${at(0)} 5v6M${at(1)} 5v6M${at(0.5)} 6v4`}),
    drawing('path', {class: 'curve', d: `M${at(low)} 8H${at(high)}M${at(low)} 4v8M${at(high)} 4v8`}),
    drawing('circle', {class: 'dot', cx: at(score), cy: 8, r: 3.5}));
}

// Round numbers that divide a range, at most five.
function ticks(low, high) {
  const rough = (high - low || 1) / 4, ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(each => each * ten).find(each => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(Number(at.toPrecision(6)));
  return found;
}

const brief = number => Math.abs(number) >= 1e6 ? number / 1e6 + 'M' : Math.abs(number) >= 1e4 ? number / 1e3 + 'k' : String(number);

// Curves over one axis. `lines`: {run, points, kind, title}
function chart(title, across, lines) {
  const wide = 880, high = 280, left = 48, foot = 34, top = 8, right = 10;
  const all = lines.flatMap(line => line.points);
  const xs = all.map(point => point[0]), ys = all.map(point => point[1]);
  const least = list => list.reduce((a, b) => Math.min(a, b)), most = list => list.reduce((a, b) => Math.max(a, b));
  const [x0, x1] = [0, most(xs) || 1];
  let [y0, y1] = [least(ys), most(ys)];
  if (y0 === y1) { y0 -= 0.5; y1 += 0.5; }
  const x = value => left + (value - x0) / (x1 - x0) * (wide - left - right);
  const y = value => high - foot - (value - y0) / (y1 - y0) * (high - foot - top);
  const picture = drawing('svg', {viewBox: `0 0 ${wide} ${high}`, role: 'img', 'aria-label': title});
  for (const tick of ticks(y0, y1)) {
    picture.append(drawing('path', {class: 'axis', d: `M${left} ${y(tick)}H${wide - right}`}),
      drawing('text', {x: left - 6, y: y(tick) + 4, 'text-anchor': 'end', text: brief(tick)}));
  }
  for (const tick of ticks(x0, x1)) {
    picture.append(drawing('text', {x: x(tick), y: high - foot + 16, 'text-anchor': 'middle', text: brief(tick)}));
  }
  picture.append(drawing('text', {x: (left + wide - right) / 2, y: high - 3, 'text-anchor': 'middle', text: across}));
  for (const {run, points: along, kind} of lines) {
    const path = along.map(([a, b], index) => `${index ? 'L' : 'M'}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join('');
    const group = drawing('g', {class: 'run' + run % COLOURS}, drawing('title', {text: DATA.runs[run].label}),
      drawing('path', {class: 'curve ' + kind, d: path}));
    if (kind !== 'faintly') {
      for (const [a, b] of along) group.append(drawing('circle', {class: 'dot', cx: x(a).toFixed(1), cy: y(b).toFixed(1), r: 2.6}));
    }
    picture.append(group);
  }
  return picture;
}

// How many completions have so many tokens, right ones above the line and all others below it.
function lengthsChart(title, right, others) {
  const wide = 320, high = 130, left = 8, foot = 20, middle = (high - foot) / 2, bins = 24;
  const largest = [...right, ...others].reduce((a, b) => Math.max(a, b), 1);
  const binned = list => {
    const found = new Array(bins).fill(0);
    for (const tokens of list) found[Math.min(bins - 1, Math.floor(tokens / (largest + 1) * bins))] += 1;
    return found;
  };
  const [up, down] = [binned(right), binned(others)];
  const most = Math.max(1, ...up, ...down), scale = (middle - 4) / most, step = (wide - 2 * left) / bins;
  const picture = drawing('svg', {viewBox: `0 0 ${wide} ${high}`, role: 'img', 'aria-label': title});
  up.forEach((number, bin) => {
    const at = left + bin * step + 1, range = `${Math.ceil(bin * (largest + 1) / bins)} tokens and more`;
    if (number) picture.append(drawing('rect', {class: 'good', x: at, width: step - 2, y: middle - number * scale,
      height: number * scale}, drawing('title', {text: `${number} correct, ${range}`})));
    if (down[bin]) picture.append(drawing('rect', {class: 'bad', x: at, width: step - 2, y: middle, height: down[bin] * scale},
      drawing('title', {text: `${down[bin]} not correct, ${range}`})));
  });
  picture.append(drawing('path', {class: 'axis', d: `M${left} ${middle}H${wide - left}`}),
    drawing('text', {x: left, y: high - 4, text: '0'}),
    drawing('text', {x: wide - left, y: high - 4, 'text-anchor': 'end', text: `${count(largest)} tokens`}));
  return picture;
}
