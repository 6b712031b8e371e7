// Every head's pattern as a thumbnail, one of them in full, and the text with and without the heads that are off.

// A grid of thumbnails, a row for each layer and a column for each head, with a cursor that follows clicks and arrow keys.
function mosaic({ label, pick }) {
  let now = null, box = null;
  const place = (row, column) => [box.x + column * box.cell, box.y + row * box.cell, box.cell - 2, box.cell - 2];
  const side = (width) => Math.min(64, Math.max(8, (width - 46) / now.heads));
  const paper = surface(
    { tabindex: 0, role: "application", "aria-roledescription": "grid of patterns", "aria-label": label },
    (width) => (now ? now.layers.length * side(width) + 40 : 40),
    (g, width, height, ink) => {
      if (!now) return;
      box = { x: 46, y: 4, cell: side(width) };
      g.imageSmoothingEnabled = false;
      const [rows, columns] = now.size, area = rows * columns;
      now.layers.forEach((layer, row) => {
        for (let head = 0; head < now.heads; head++) {
          const start = (row * now.heads + head) * area, values = now.values.subarray(start, start + area);
          const high = values.reduce((a, b) => (b > a ? b : a), 0), at = place(row, head);
          g.drawImage(pixels({ values, rows, columns, low: 0, high }), ...at);
          if (!now.off.some(([l, h]) => l === layer && h === head)) continue;
          g.fillStyle = "rgba(255,255,255,0.6)"; g.fillRect(...at);
          g.strokeStyle = "#b84a00"; g.lineWidth = 2; g.beginPath();
          g.moveTo(at[0], at[1]); g.lineTo(at[0] + at[2], at[1] + at[3]);
          g.moveTo(at[0] + at[2], at[1]); g.lineTo(at[0], at[1] + at[3]); g.stroke();
        }
      });
      g.fillStyle = ink; g.textAlign = "right"; g.textBaseline = "middle";
      for (const n of ticks(0, now.layers.length - 1, now.layers.length * box.cell, 16, 1)) g.fillText(String(now.layers[n]), box.x - 6, box.y + (n + 0.5) * box.cell);
      g.textAlign = "center"; g.textBaseline = "top";
      for (const n of ticks(0, now.heads - 1, now.heads * box.cell, 24, 1)) g.fillText(String(n), box.x + (n + 0.5) * box.cell, height - 34);
      g.textAlign = "left";
      g.fillText("head, a row for each layer", box.x, height - 16);
      const chosen = place(...now.at);
      g.lineWidth = 4; g.strokeStyle = "#000"; g.strokeRect(...chosen);
      g.lineWidth = 2; g.strokeStyle = "#fff"; g.strokeRect(...chosen);
    },
  );
  const go = (row, column) => {
    if (row < 0 || column < 0 || row >= now.layers.length || column >= now.heads) return;
    now.at = [row, column];
    pick(now.layers[row], column);
  };
  paper.canvas.addEventListener("click", (event) => {
    if (!now || !box) return;
    const { left, top } = paper.canvas.getBoundingClientRect();
    go(Math.floor((event.clientY - top - box.y) / box.cell), Math.floor((event.clientX - left - box.x) / box.cell));
  });
  arrows(paper.canvas, () => now, go);
  return { node: make("div", { class: "mosaic" }, paper.node), draw: (next) => { now = next; paper.redraw(); }, stop: paper.stop };
}

function render({ model, el }) {
  const group = () => model.get("pattern").group ?? 1;
  const layers = () => model.get("layers");
  const isOff = () => model.get("off").some(([layer, head]) => layer === model.get("layer") && head === model.get("head"));
  const all = mosaic({ label: "patterns of every head; arrow keys move to another head", pick: (layer, head) => put(model, { layer, head }) });
  let query = 0, key = 0;
  const tokens = () => model.get("tokens");
  const large = heatmap({
    label: "pattern of one head; arrow keys move to another pair of tokens",
    rowName: "query", columnName: "key", aspect: 1, most: 460,
    read: (row, column, value) => {
      const word = (n) => `${n * group()} ${JSON.stringify(tokens()[n * group()] ?? "")}`;
      return `query ${word(row)} takes ${rounded(value)} of key ${word(column)}`;
    },
    pick: (row, column) => { [query, key] = [row, column]; drawLarge(); },
  });
  const largeScale = scale("0", "");
  const step = slider("Step", 0, (i) => put(model, { step: model.get("steps")[i] }));
  const button = make("button", { type: "button", onclick: () => {
    const here = [model.get("layer"), model.get("head")];
    const others = model.get("off").filter(([layer, head]) => layer !== here[0] || head !== here[1]);
    put(model, { off: isOff() ? others : [...others, here] });
  } });
  const name = make("h3", {}), title = make("h3", {}), note = make("p", { class: "quiet" });
  const message = make("p", { class: "message", role: "status" }), status = make("p", { class: "quiet", role: "status" });
  const code = make("code", {}), texts = make("div", { class: "scroll" });
  const waiting = make("p", { class: "quiet", role: "status" }, behindWords(model));
  const root = make("div", { class: "dlens heads" },
    name,
    make("div", { class: "controls" }, step.node, button),
    message, status, waiting,
    make("div", { class: "columns" },
      make("section", {}, make("h3", {}, "Every head"), all.node),
      make("section", {}, title, largeScale.node, large.node, note, make("p", {}, code), texts)));
  el.append(root);

  const drawControls = () => {
    const steps = model.get("steps"), i = steps.indexOf(model.get("step")), masked = model.get("noises")[i];
    step.node.hidden = steps.length < 2;
    step.set(i, `${model.get("step")}${masked == null ? "" : `, ${Math.round(100 * masked)} % masked`}`, Math.max(0, steps.length - 1));
    button.hidden = !!model.alone;
    button.textContent = isOff() ? "Put this head back" : "Ablate this head";
    button.setAttribute("aria-pressed", isOff());
    name.textContent = model.get("name");
    code.textContent = model.get("code");
    for (const [node, words] of [[message, model.get("message")], [status, model.get("status")]]) {
      node.hidden = !words;
      node.textContent = words;
    }
    texts.replaceChildren(table(["", "text"], model.get("texts").map(([words, text]) => [words, visible(text)])));
    texts.hidden = !model.get("texts").length;
  };
  const drawAll = () => {
    const held = model.get("thumbnails");
    if (!held.data) return;
    const { values, shape } = unpack(held);
    const at = [Math.max(0, layers().indexOf(model.get("layer"))), model.get("head")];
    all.draw({ values, layers: layers(), heads: shape[1], size: shape.slice(2), off: model.get("off"), at });
  };
  const drawLarge = () => {
    const held = model.get("pattern");
    if (!held.data) return;
    title.textContent = `Layer ${held.layer}, head ${held.head}, step ${held.step}`;
    note.textContent = held.group > 1 ? `Each cell is the mean of about ${held.group} by ${held.group} tokens.` : "";
    note.hidden = !note.textContent;
    const { values, shape } = unpack(held), high = values.reduce((a, b) => (b > a ? b : a), 0);
    largeScale.set("0", rounded(high));
    const at = [Math.min(query, shape[0] - 1), Math.min(key, shape[1] - 1)];
    large.draw({ values, rows: shape[0], columns: shape[1], rowStep: held.group, columnStep: held.group, low: 0, high, at, names: held.group > 1 ? null : tokens() });
  };
  const drawWaiting = () => {
    const held = model.get("pattern");
    const behind = ["layer", "head", "step"].some((each) => held[each] !== model.get(each));
    waiting.hidden = !behind;
    root.setAttribute("aria-busy", behind);
  };
  const ends = [
    hidePicture(model),
    follow(model, ["layer", "head", "step", "steps", "noises", "off", "name", "code", "message", "status", "texts"], drawControls),
    follow(model, ["thumbnails", "layer", "head", "off"], drawAll),
    follow(model, ["pattern", "tokens"], drawLarge),
    follow(model, ["pattern", "layer", "head", "step"], drawWaiting),
  ];
  return () => { ends.forEach((end) => end()); [all, large].forEach((each) => each.stop()); };
}

export default { render };
