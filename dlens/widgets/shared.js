// What the widgets share. Text of tokens becomes text nodes only, never markup.

// From the least to the most; and around 0, below it blue and above it red.
const POINTS = [[18, 53, 112], [60, 77, 110], [102, 105, 112], [140, 134, 120], [181, 166, 108], [222, 202, 84], [253, 234, 69]];
const AROUND = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [247, 247, 247], [253, 219, 199], [239, 138, 98], [178, 24, 43]];
const LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"];
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [1, 2], [12, 4]];

// An element with attributes, "on..." listeners and children; strings become text nodes.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// A binary trait as a typed array with its shape.
function unpack({ data, shape, dtype }) {
  const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  return { shape, values: dtype === "float32" ? new Float32Array(bytes) : new Int32Array(bytes) };
}

function ramp(share, points = POINTS) {
  const place = Math.min(Math.max(share, 0), 1) * (points.length - 1);
  const low = Math.min(Math.floor(place), points.length - 2);
  return points[low].map((channel, i) => Math.round(channel + (points[low + 1][i] - channel) * (place - low)));
}

const paint = (rgb) => `rgb(${rgb.join(",")})`;
const inkOn = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 117 ? "#000" : "#fff");
const rounded = (value, digits = 3) => (Number.isFinite(value) ? String(Number(value.toPrecision(digits))) : "–");
// A leading space and line breaks, made visible.
const visible = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ +| +$/g, (s) => "·".repeat(s.length)) || "∅";

// Call `draw` now and, once a frame at most, when one of the traits changes; returns a function that stops it.
function follow(model, traits, draw) {
  let waiting = 0;
  const soon = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; draw(); }); };
  for (const name of traits) model.on(`change:${name}`, soon);
  draw();
  return () => {
    cancelAnimationFrame(waiting);
    for (const name of traits) model.off(`change:${name}`, soon);
  };
}

// The picture that notebooks keep for readers without a kernel is out of sight while the widget is there.
function hidePicture(model) {
  const style = make("style", {}, `[data-dlens-picture="${model.get("picture")}"] { display: none; }`);
  document.head.append(style);
  return () => style.remove();
}

function put(model, changes) {
  for (const [name, value] of Object.entries(changes)) model.set(name, value);
  model.save_changes();
}

// What a widget says while the pictures are not yet of what was chosen, or never will be.
const behindWords = (model) => (model.alone ? "This page does not hold what was chosen: the pictures are of what was chosen before." : "Waiting for the kernel: the pictures are of what was chosen before.");

// A labelled choice; `options` are pairs of value and text, or of value, text and whether it is disabled.
function choice(label, options, value, onchange) {
  const select = make("select", { "aria-label": label, onchange: () => onchange(select.value) });
  const fill = (options, value) => {
    const all = options.map(([value, text, disabled]) => make("option", { value, disabled: !!disabled }, text));
    select.replaceChildren(...all);
    select.value = value;
  };
  fill(options, value);
  return { node: make("label", {}, make("span", {}, label), select), select, fill };
}

function slider(label, most, oninput) {
  const input = make("input", { type: "range", "aria-label": label, min: 0, max: most, step: 1, oninput: () => oninput(Number(input.value)) });
  const value = make("output", {});
  const set = (number, text, most = input.max) => {
    input.max = most;
    input.value = number;
    input.setAttribute("aria-valuetext", text);
    value.textContent = text;
  };
  return { node: make("label", { class: "range" }, make("span", {}, label), input, value), input, set };
}

// A bar that explains the colours.
function scale(low, high, points = POINTS) {
  const bar = make("span", { class: "bar" });
  bar.style.background = `linear-gradient(to right, ${points.map(paint).join(",")})`;
  const ends = [make("span", {}, low), make("span", {}, high)];
  const set = (low, high) => { ends[0].textContent = low; ends[1].textContent = high; };
  return { node: make("span", { class: "scale" }, ends[0], bar, ends[1]), set };
}

function table(columns, rows) {
  const head = make("tr", {}, ...columns.map((name) => make("th", { scope: "col" }, name)));
  const cells = (row) => row.map((cell) => make("td", {}, ...[cell].flat()));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))));
}

// The numbers of a figure as a table, made when it is opened.
function numbers(contents) {
  const place = make("div", { class: "scroll" });
  const fill = () => { if (node.open) place.replaceChildren(table(...contents())); };
  const node = make("details", { ontoggle: fill }, make("summary", {}, "The numbers"), place);
  return { node, fill };
}

// A canvas as wide as its place, sharp on every screen and on paper, drawn again when its size or the colours change.
function surface(attributes, height, draw) {
  const canvas = make("canvas", attributes), printed = matchMedia("print"), dark = matchMedia("(prefers-color-scheme: dark)");
  const node = make("div", { class: "surface" }, canvas);
  const redraw = () => {
    const width = node.clientWidth;
    if (!width) return;
    const density = Math.max(window.devicePixelRatio || 1, printed.matches ? 3 : 1), tall = height(width);
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(tall * density);
    canvas.style.height = `${tall}px`;
    const g = canvas.getContext("2d");
    g.scale(density, density);
    const ink = getComputedStyle(node).color;
    g.font = "12px system-ui, sans-serif";
    g.fillStyle = g.strokeStyle = ink;
    draw(g, width, tall, ink);
  };
  const sizes = new ResizeObserver(redraw);
  sizes.observe(node);
  // A browser lays pages out before it says that it prints: a map that changed its size by then would be cut.
  const paper = ({ type }) => { node.closest(".dlens")?.classList.toggle("paper", type === "beforeprint"); redraw(); };
  const heard = [[printed, "change", redraw], [dark, "change", redraw], [window, "beforeprint", paper], [window, "afterprint", paper]];
  for (const [from, name, call] of heard) from.addEventListener(name, call);
  return { node, canvas, redraw, stop: () => { sizes.disconnect(); for (const [from, name, call] of heard) from.removeEventListener(name, call); } };
}

// Where to write numbers along an axis: round ones, so few that each has `gap` of `room`, and at least `least` apart.
function ticks(low, high, room, gap, least = 0) {
  const wanted = Math.max((high - low) / Math.max(1, room / gap), least, 1e-9), power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= wanted * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(9)));
}

// Arrow keys move a cursor; `now()` is what is drawn, with its cursor in `at`, or nothing.
function arrows(canvas, now, go) {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const move = moves[event.key], drawn = now();
    if (!drawn || !move) return;
    event.preventDefault();
    go(drawn.at[0] + move[0], drawn.at[1] + move[1]);
  });
}

// A heat map with a cursor that follows clicks and arrow keys. `draw({values, rows, columns, low, high, at, ...})`;
// `names` stand along both axes in place of numbers.
function heatmap({ label, rowName, columnName, read, pick, aspect = 0.5, most = 420 }) {
  let now = null, box = null;
  const readout = make("p", { class: "readout", "aria-live": "polite" });
  const paper = surface(
    { tabindex: 0, role: "application", "aria-roledescription": "heat map", "aria-label": label },
    (width) => (now ? Math.min(most, Math.max(140, width * aspect)) : 40),
    (g, width, height, ink) => {
      if (!now) return;
      const side = now.names ? 90 : 46;
      box = { x: side, y: 6, w: width - side - 8, h: height - side };
      g.imageSmoothingEnabled = false;
      g.drawImage(pixels(now), box.x, box.y, box.w, box.h);
      if (now.texts) written(g, box, now);
      axes(g, box, now, ink, rowName, columnName);
      const [row, column] = now.at, w = box.w / now.columns, h = box.h / now.rows;
      const place = [box.x + column * w, box.y + row * h, w, h];
      g.lineWidth = 4; g.strokeStyle = "#000"; g.strokeRect(...place);
      g.lineWidth = 2; g.strokeStyle = "#fff"; g.strokeRect(...place);
    },
  );
  const go = (row, column) => {
    const inside = (n, size) => Math.min(Math.max(n, 0), size - 1);
    // At once, as the next key may come before the picture.
    now.at = [inside(row, now.rows), inside(column, now.columns)];
    pick(...now.at);
  };
  paper.canvas.addEventListener("click", (event) => {
    if (!now || !box) return;
    const { left, top } = paper.canvas.getBoundingClientRect();
    go(Math.floor((event.clientY - top - box.y) / box.h * now.rows), Math.floor((event.clientX - left - box.x) / box.w * now.columns));
  });
  arrows(paper.canvas, () => now, go);
  const draw = (next) => {
    now = next;
    readout.textContent = now ? read(now.at[0], now.at[1], now.values[now.at[0] * now.columns + now.at[1]]) : "";
    paper.redraw();
  };
  return { node: make("div", { class: "heatmap" }, paper.node, readout), canvas: paper.canvas, draw, stop: paper.stop };
}

// Words within cells that have room for them.
function written(g, box, { rows, columns, texts, values, low, high }) {
  const w = box.w / columns, h = box.h / rows;
  if (w < 30 || h < 11) return;
  g.font = "10px system-ui, sans-serif";
  g.textAlign = "center"; g.textBaseline = "middle";
  texts.forEach((text, n) => {
    g.fillStyle = Number.isFinite(values[n]) ? inkOn(ramp((values[n] - low) / (high - low || 1))) : "#808080";
    const fits = Math.max(1, Math.floor(w / 5.5)), short = text.length > fits ? `${text.slice(0, fits - 1)}…` : text;
    g.fillText(short, box.x + (n % columns + 0.5) * w, box.y + (Math.floor(n / columns) + 0.5) * h);
  });
  g.font = "12px system-ui, sans-serif";
}

function pixels({ values, rows, columns, low, high, points = POINTS }) {
  const canvas = new OffscreenCanvas(columns, rows), g = canvas.getContext("2d");
  const image = g.createImageData(columns, rows);
  values.forEach((value, i) => {
    const known = Number.isFinite(value), [r, green, b] = known ? ramp((value - low) / (high - low || 1), points) : [128, 128, 128];
    image.data.set([r, green, b, known ? 255 : 60], 4 * i);
  });
  g.putImageData(image, 0, 0);
  return canvas;
}

function axes(g, box, { rows, columns, rowStep = 1, columnStep = 1, names, rowNames }, ink, rowName, columnName) {
  g.fillStyle = ink;
  if (names) return named(g, box, rows, columns, names);
  g.textAlign = "center"; g.textBaseline = "top";
  for (const n of ticks(0, columns - 1, box.w, 28, 1)) g.fillText(String(n * columnStep), box.x + (n + 0.5) * box.w / columns, box.y + box.h + 5);
  g.fillText(columnName, box.x + box.w / 2, box.y + box.h + 22);
  g.textAlign = "right"; g.textBaseline = "middle";
  for (const n of ticks(0, rows - 1, box.h, 16, 1)) g.fillText(String(rowNames?.[n] ?? n * rowStep), box.x - 5, box.y + (n + 0.5) * box.h / rows);
  g.save();
  g.translate(10, box.y + box.h / 2); g.rotate(-Math.PI / 2); g.textAlign = "center";
  g.fillText(rowName, 0, 0);
  g.restore();
}

// Tokens along both axes, as many as have room.
function named(g, box, rows, columns, names) {
  const short = (n) => { const text = visible(names[n] ?? ""); return text.length > 10 ? `${text.slice(0, 9)}…` : text; };
  g.textAlign = "right"; g.textBaseline = "middle";
  for (const n of ticks(0, rows - 1, box.h, 12, 1)) g.fillText(short(n), box.x - 5, box.y + (n + 0.5) * box.h / rows);
  for (const n of ticks(0, columns - 1, box.w, 12, 1)) {
    g.save();
    g.translate(box.x + (n + 0.5) * box.w / columns, box.y + box.h + 5); g.rotate(-Math.PI / 2);
    g.fillText(short(n), 0, 0);
    g.restore();
  }
}

// Lines over one axis; `draw({series: [{name, x, y}], mark})`, with a legend of elements below.
function plot({ label, xName, yName, tall = 220 }) {
  let now = { series: [] };
  const legend = make("p", { class: "legend" });
  const paper = surface({ role: "img", "aria-label": label }, () => tall, (g, width, height, ink) => {
    const points = now.series.flatMap(({ x, y }) => Array.from(x, (at, i) => [at, y[i]]).filter(([, v]) => Number.isFinite(v)));
    if (!points.length) return;
    const ends = (which) => points.reduce(([a, b], p) => [Math.min(a, p[which]), Math.max(b, p[which])], [Infinity, -Infinity]);
    const [left, right] = ends(0);
    let [low, high] = ends(1);
    const margin = (high - low) * 0.06 || 0.05;
    [low, high] = [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
    const box = { x: 64, y: 8, w: width - 74, h: height - 50 };
    const px = (v) => box.x + (v - left) / (right - left || 1) * box.w, py = (v) => box.y + (high - v) / (high - low) * box.h;
    g.textAlign = "right"; g.textBaseline = "middle";
    for (const value of ticks(low, high, box.h, 26)) {
      g.globalAlpha = 0.2; g.beginPath(); g.moveTo(box.x, py(value)); g.lineTo(box.x + box.w, py(value)); g.stroke(); g.globalAlpha = 1;
      g.fillText(String(value), box.x - 5, py(value));
    }
    g.textAlign = "center"; g.textBaseline = "top";
    for (const n of ticks(left, right, box.w, 30, 1)) g.fillText(String(n), px(n), box.y + box.h + 5);
    g.fillText(xName, box.x + box.w / 2, box.y + box.h + 24);
    g.save(); g.translate(2, box.y + box.h / 2); g.rotate(-Math.PI / 2); g.fillText(yName, 0, 0); g.restore();
    if (now.mark != null && now.mark >= left && now.mark <= right) {
      g.globalAlpha = 0.5; g.beginPath(); g.moveTo(px(now.mark), box.y); g.lineTo(px(now.mark), box.y + box.h); g.stroke(); g.globalAlpha = 1;
    }
    now.series.forEach(({ x, y }, number) => {
      g.strokeStyle = g.fillStyle = LINES[number % LINES.length];
      g.lineWidth = 2; g.setLineDash(DASHES[number % DASHES.length]);
      g.beginPath();
      let on = false;
      x.forEach((at, i) => {
        if (!Number.isFinite(y[i])) { on = false; return; }
        on ? g.lineTo(px(at), py(y[i])) : g.moveTo(px(at), py(y[i]));
        on = true;
        if (x.length < 3) g.fillRect(px(at) - 2, py(y[i]) - 2, 4, 4);
      });
      g.stroke();
    });
  });
  const draw = (next) => {
    now = next;
    legend.replaceChildren(...now.series.map(({ name }, number) => {
      const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      for (const [attribute, value] of Object.entries({ x1: 0, x2: 28, y1: 5, y2: 5, stroke: LINES[number % LINES.length], "stroke-width": 3, "stroke-dasharray": DASHES[number % DASHES.length].join(" ") })) line.setAttribute(attribute, value);
      key.setAttribute("width", 28); key.setAttribute("height", 10); key.setAttribute("aria-hidden", "true");
      key.append(line);
      return make("span", {}, key, now.series[number].y.some(Number.isFinite) ? name : `${name}: no numbers here`);
    }));
    paper.redraw();
  };
  const pages = numbers(() => [[xName, ...now.series.map((s) => s.name)], Array.from(now.series[0]?.x ?? [], (at, i) => [rounded(at), ...now.series.map((s) => rounded(s.y[i]))])]);
  return { node: make("div", {}, paper.node, legend, pages.node), draw: (next) => { draw(next); pages.fill(); }, stop: paper.stop };
}
