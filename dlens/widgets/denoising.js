// The canvas of a denoising run: controls, one token area a record, the order of commits, and one position in detail.

const MASK_SIGN = "░";
const WHAT = {
  commit: "the step that committed what stands there; grey is masked, or prompt",
  confidence: "the probability of the likeliest token; grey is prompt, or not measured",
  entropy: "the entropy of all tokens, in nats; grey is prompt, or not measured",
};

let made = 0;

function side(model, number) {
  const id = `dlens-tokens-${made++}`;
  let frames = null, spans = [], drawn = [];
  const heading = make("h3", {});
  const list = make("div", { class: "tokens token", role: "listbox", tabindex: 0, "aria-label": "tokens" });
  const line = make("p", { class: "quiet" });

  const load = () => {
    const raw = model.get("sides")[number];
    const { ids, committed, confidence, kind, chances, entropy } = raw, values = (held) => unpack(held).values;
    frames = { ...raw, ids: unpack(ids), committed: values(committed), confidence: values(confidence), kind: values(kind), chances: values(chances), entropy: values(entropy), computed: raw.computed.shape ? values(raw.computed) : null };
    frames.width = frames.kind.length;
    frames.steps = frames.ids.shape[0] - 1;
    heading.textContent = raw.name;
    page();
  };
  const page = () => {
    const first = model.get("first"), end = Math.min(first + model.get("shown"), frames.width);
    spans = Array.from({ length: Math.max(0, end - first) }, (_, i) => make("span", { role: "option", id: `${id}-${first + i}`, "data-position": first + i, hidden: frames.kind[first + i] === 2 }));
    drawn = spans.map(() => "");
    list.replaceChildren(...spans);
  };
  const at = (frame, position) => frames.ids.values[Math.min(frame, frames.steps) * frames.width + position];
  // Whether a step reads a position from earlier ones; nothing is computed for the finished text.
  const still = (step, position) => Boolean(frames.computed) && step < frames.steps && !frames.computed[step * frames.width + position];
  const colour = (position) => {
    const share = atCommit(frames, model.get("colour"), position);
    return frames.kind[position] === 1 && Number.isFinite(share) ? ramp(share) : null;
  };
  const draw = (other) => {
    const step = model.get("step"), first = model.get("first"), chosen = model.get("position"), mask = model.get("mask");
    let differ = 0;
    for (let p = 0; p < frames.width; p++) if (other && frames.kind[p] !== 2 && at(step, p) !== other.at(step, p)) differ++;
    spans.forEach((span, i) => {
      const p = first + i, token = at(step, p), masked = token === mask && frames.kind[p] === 1;
      const fresh = step > 0 && step <= frames.steps && at(step - 1, p) !== token;
      const unlike = other && token !== other.at(step, p);
      const back = masked ? null : colour(p);
      const dim = still(step, p);
      const look = [token, masked, fresh, unlike, back, dim, p === chosen].join();
      if (look === drawn[i]) return;
      drawn[i] = look;
      span.textContent = masked ? MASK_SIGN : model.get("pieces")[token].replace(/\n/g, "⏎\n");
      const breaks = !masked && model.get("pieces")[token].includes("\n");
      span.className = [breaks && "break", masked && "masked", fresh && "fresh", unlike && "unlike", dim && "still", frames.kind[p] === 0 && "prompt"].filter(Boolean).join(" ");
      // What is not computed has its colour below it, on the page's own ground.
      span.style.background = back && !dim ? paint(back) : "";
      span.style.color = back && !dim ? inkOn(back) : "";
      span.style.setProperty("--own", back && dim ? paint(back) : "");
      span.setAttribute("aria-selected", p === chosen);
      span.setAttribute("aria-label", words(p, token, masked, fresh, unlike, dim));
    });
    list.setAttribute("aria-activedescendant", `${id}-${chosen}`);
    const noise = frames.noise[Math.min(step, frames.steps)];
    const compared = other ? `; ${differ} of ${frames.width} positions differ` : "";
    const real = Array.from(frames.kind.keys()).filter((p) => frames.kind[p] !== 2);
    const window = frames.computed && step < frames.steps ? `; this step computes ${real.filter((p) => !still(step, p)).length} of ${real.length} positions` : "";
    line.textContent = `${Math.round(100 * noise)} % masked${compared}${window}`;
    list.setAttribute("aria-label", `${frames.name}: tokens ${step >= frames.steps ? "at the end" : `before step ${step}`}`);
  };
  const words = (p, token, masked, fresh, unlike, dim) => {
    const what = masked ? "masked" : JSON.stringify(model.get("pieces")[token]);
    const when = frames.kind[p] === 0 ? ", prompt" : frames.committed[p] >= 0 ? `, committed at step ${frames.committed[p]}` : "";
    return `position ${p}: ${what}${when}${fresh ? ", new" : ""}${unlike ? ", differs" : ""}${dim ? ", not computed" : ""}`;
  };
  load();
  return { node: make("section", { class: "side" }, heading, line, list), list, load, page, draw, at, still, get frames() { return frames; } };
}

// How bright a token is, from 0 to 1: when it was committed, or how sure the model was then; NaN where it is not known.
function atCommit(frames, colour, position) {
  const step = frames.committed[position];
  if (step < 0) return NaN;
  if (colour === "commit") return step / Math.max(1, frames.steps - 1);
  return colour === "confidence" ? frames.confidence[position] : frames.entropy[step * frames.width + position] / (frames.most_entropy || 1);
}

// The whole run at once: position to the right, step downwards, coloured as the tokens are.
function commits(model, sides) {
  const group = () => Math.max(1, Math.ceil(sides[0].frames.width / 1024));
  const said = (step, p) => {
    const { frames } = sides[0], token = sides[0].at(step, p), masked = token === model.get("mask") && frames.kind[p] === 1;
    const known = step < frames.steps, [chance, entropy] = ["chances", "entropy"].map((name) => known ? frames[name][step * frames.width + p] : NaN);
    const sure = (Number.isFinite(chance) ? `; the likeliest token has ${(100 * chance).toFixed(0)} %` : "") + (Number.isFinite(entropy) ? `, entropy ${entropy.toFixed(2)} nats` : "");
    const when = frames.kind[p] === 0 ? "prompt" : masked ? "masked" : frames.committed[p] >= 0 ? `decoded at step ${frames.committed[p]}` : "decoded";
    return `${when}${sure}${sides[0].still(step, p) ? "; not computed by this step" : ""}`;
  };
  const map = heatmap({
    label: "which positions are decoded at each step; arrow keys move the step and the position",
    rowName: "step",
    columnName: "position",
    aspect: 0.34,
    most: 280,
    read: (row, column) => {
      const p = column * group();
      if (group() === 1) return `position ${p} before step ${row}: ${said(row, p)}`;
      return `positions ${p} to ${Math.min(p + group(), sides[0].frames.width) - 1} before step ${row}`;
    },
    pick: (step, column) => put(model, { step, position: column * group(), first: Math.floor(column * group() / model.get("shown")) * model.get("shown") }),
  });
  const value = (step, p) => {
    const { frames } = sides[0];
    if (frames.kind[p] !== 1) return NaN;
    const masked = sides[0].at(step, p) === model.get("mask"), colour = model.get("colour");
    if (colour === "commit" || step === frames.steps) return masked ? NaN : atCommit(frames, colour, p);
    const cell = step * frames.width + p;
    return colour === "confidence" ? frames.chances[cell] : frames.entropy[cell] / (frames.most_entropy || 1);
  };
  const load = () => {
    const { frames } = sides[0], n = group(), columns = Math.ceil(frames.width / n);
    const values = new Float32Array((frames.steps + 1) * columns);
    for (let step = 0; step <= frames.steps; step++) {
      for (let c = 0; c < columns; c++) {
        let sum = 0, size = 0;
        for (let p = c * n; p < Math.min((c + 1) * n, frames.width); p++) {
          const own = value(step, p);
          if (Number.isFinite(own)) { sum += own; size++; }
        }
        values[step * columns + c] = size ? sum / size : NaN;
      }
    }
    return { values, rows: frames.steps + 1, columns, columnStep: n, low: 0, high: 1 };
  };
  let cells = null, of = [];
  const draw = () => {
    const now = [sides[0].frames, model.get("colour")];
    if (now.some((each, i) => each !== of[i])) [cells, of] = [load(), now];
    map.draw({ ...cells, at: [Math.min(model.get("step"), cells.rows - 1), Math.min(Math.floor(model.get("position") / group()), cells.columns - 1)] });
  };
  return { ...map, draw, group };
}

// The first choice of every layer at every position of a step.
function lensMap(model) {
  const held = () => model.get("lens"), title = make("h3", {});
  const layers = () => held().layers;
  const map = heatmap({
    label: "first choice of every layer at every position; arrow keys move the layer and the position",
    rowName: "layer", columnName: "position", aspect: 0.34, most: 300,
    read: (row, column, chance) => {
      const { ids, words, shape } = held(), word = unpack(ids).values[row * shape[1] + column];
      return `layer ${layers()[row]}, position ${column}: ${word < 0 ? "not measured" : `${JSON.stringify(words[word])} ${(100 * chance).toFixed(1)} %`}`;
    },
    pick: (row, column) => put(model, { layer: layers()[row], position: column }),
  });
  const node = make("section", {}, title, make("p", { class: "quiet" }, "Colour: its probability, from 0 (dark) to 100 % (bright)."), map.node);
  const draw = () => {
    const { shape, step, ids, words } = held();
    node.hidden = !shape;
    if (!shape) return;
    title.textContent = `First choice of every layer (logit lens) at step ${step}${model.get("sides").length > 1 ? ", of the first run" : ""}`;
    const at = [Math.max(0, layers().indexOf(model.get("layer"))), Math.min(model.get("position"), shape[1] - 1)];
    const texts = Array.from(unpack(ids).values, (word) => (word < 0 ? "" : visible(words[word])));
    map.draw({ values: unpack(held()).values, rows: shape[0], columns: shape[1], low: 0, high: 1, at, texts, rowNames: layers() });
  };
  return { node, draw, stop: map.stop };
}

// Without a kernel: what it would answer, from all that was measured.
function answers(model) {
  const first = model.get("detail").sides;
  return () => {
    const { position, layer } = Object.fromEntries(["position", "layer"].map((name) => [name, model.get(name)]));
    const held = model.get("thoughts").map((own) => (own.ids ? { ...own, ids: unpack(own.ids), chances: unpack(own.chances).values } : null));
    const committed = model.get("sides").map((own) => unpack(own.committed).values[position]);
    const steps = model.get("sides").map((own) => own.noise.length - 1);
    const detail = held.map((own, i) => {
      const step = model.get("step") < steps[i] ? model.get("step") : committed[i] >= 0 ? committed[i] : steps[i] - 1;
      const nothing = { step, alternatives: [], lens: [], message: "" };
      if (!own) return { ...nothing, message: first[i].message };
      const [, layers, positions, ranks] = own.ids.shape;
      const at = (l) => ((step * layers + l) * positions + position) * ranks;
      if (own.ids.values[at(0)] < 0) return { ...nothing, message: "Nothing was measured here: padding, after the end of the row, or not computed by this step." };
      const pair = (n) => [own.words[own.ids.values[n]], own.chances[n]];
      const lens = own.layers.map((l, n) => [l, ...pair(at(n))]), here = own.layers.indexOf(layer);
      if (here < 0) return { ...nothing, lens, message: `Layer ${layer} was not measured.` };
      const alternatives = Array.from({ length: ranks }, (_, n) => at(here) + n).filter((n) => own.ids.values[n] >= 0).map(pair);
      return { step, alternatives, lens, message: "" };
    });
    model.set("detail", { position, layer, sides: detail });
    const own = held[0];
    if (!own || own.layers.length < 2) return;
    const step = Math.min(model.get("step"), steps[0] - 1), [, layers, positions, ranks] = own.ids.shape;
    const cells = Array.from({ length: layers * positions }, (_, n) => (step * layers * positions + n) * ranks);
    const packed = (values, dtype) => ({ data: new DataView(values.buffer), shape: [layers, positions], dtype });
    model.set("lens", { ...packed(Float32Array.from(cells, (n) => own.chances[n]), "float32"), step, layers: own.layers, words: own.words, ids: packed(Int32Array.from(cells, (n) => own.ids.values[n]), "int32") });
  };
}

// What the model thought of at the chosen position.
function details(model) {
  const node = make("section", { class: "details" });
  const bar = (p) => {
    const fill = make("span", { class: "share" });
    fill.style.width = `${Math.round(60 * p)}px`;
    return [fill, ` ${(100 * p).toFixed(1)} %`];
  };
  const token = (text) => make("span", { class: "token" }, visible(text));
  const draw = () => {
    const { position, layer, sides } = model.get("detail");
    const parts = sides.map((each, number) => {
      const name = sides.length > 1 ? `${model.get("sides")[number].name}: ` : "";
      const box = make("div", {}, make("h3", {}, `${name}position ${position}, predicted at step ${each.step}, layer ${layer}`));
      const committed = unpack(model.get("sides")[number].committed).values[position];
      if (committed >= 0 && model.get("step") !== committed) box.append(make("button", { onclick: () => put(model, { step: committed }) }, `Go to step ${committed}, which committed it`));
      if (each.message) box.append(make("p", { class: "message" }, each.message));
      if (each.alternatives.length) box.append(table(["alternative", "probability"], each.alternatives.map(([text, p]) => [token(text), bar(p)])));
      if (each.lens.length > 1) {
        const rows = each.lens.toReversed().map(([l, text, p]) => [
          make("button", { "aria-pressed": String(l === layer), "aria-label": `show layer ${l}`, onclick: () => put(model, { layer: l }) }, String(l)), token(text), bar(p)]);
        box.append(make("h3", {}, "First choice of every layer here, the last first"), make("div", { class: "scroll lens" }, table(["layer", "token", "probability"], rows)));
      }
      return box;
    });
    const held = [...node.querySelectorAll(".lens")].map((each) => (each.clientHeight ? each.scrollTop : undefined));
    const focused = node.contains(document.activeElement);
    node.replaceChildren(make("div", { class: "columns" }, ...parts));
    node.querySelectorAll(".lens").forEach((each, i) => {
      // The chosen layer is in sight at first, and then whatever the reader scrolled to.
      const chosen = each.querySelector('[aria-pressed="true"]');
      const below = chosen ? chosen.getBoundingClientRect().bottom - each.getBoundingClientRect().bottom : 0;
      each.scrollTop = held[i] ?? Math.max(0, below + 60);
    });
    if (focused) node.querySelector('button[aria-pressed="true"]')?.focus({ preventScroll: true });
  };
  return { node, draw };
}

function render({ model, el }) {
  const sides = model.get("sides").map((_, number) => side(model, number));
  const order = commits(model, sides);
  const detail = details(model), lens = lensMap(model);
  const answer = model.alone ? answers(model) : () => {};
  const go = (step) => put(model, { step: Math.min(Math.max(step, 0), model.get("last")) });
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "▶ Play"; };
  const play = make("button", { class: "play", onclick: () => {
    if (timer) return stop();
    if (model.get("step") >= model.get("last")) go(0);
    play.textContent = "❚❚ Pause";
    timer = setInterval(() => (model.get("step") >= model.get("last") ? stop() : go(model.get("step") + 1)), Math.max(60, Math.min(400, 8000 / model.get("last"))));
  } }, "▶ Play");
  const steps = slider("Step", model.get("last"), (step) => { stop(); go(step); });
  const colours = choice("Colour by", [], "commit", (colour) => put(model, { colour }));
  const row = choice("Row", Array.from({ length: model.get("rows") }, (_, i) => [i, String(i)]), model.get("row"), (value) => put(model, { row: Number(value) }));
  const legend = scale("", "");
  const turn = (by) => () => put(model, { first: Math.max(0, model.get("first") + by * model.get("shown")) });
  const earlier = make("button", { onclick: turn(-1) }, "‹ Earlier"), later = make("button", { onclick: turn(1) }, "Later ›"), where = make("span", { class: "quiet" });
  const pages = make("div", { class: "controls" }, earlier, where, later);

  const near = (position) => {
    const { frames } = sides[0], shown = model.get("shown");
    const p = Math.min(Math.max(position, 0), frames.width - 1);
    put(model, { position: p, first: Math.floor(p / shown) * shown });
  };
  const reading = (list) => {
    const place = (event) => event.target.closest?.("[data-position]")?.dataset.position;
    let hovering = 0;
    list.addEventListener("click", (event) => {
      clearTimeout(hovering);
      if (place(event)) near(Number(place(event)));
    });
    list.addEventListener("mousemove", (event) => {
      const p = place(event);
      clearTimeout(hovering);
      if (p && Number(p) !== model.get("position")) hovering = setTimeout(() => near(Number(p)), 60);
    });
    list.addEventListener("mouseleave", () => clearTimeout(hovering));
    list.addEventListener("keydown", (event) => {
      const p = model.get("position"), step = model.get("step");
      const keys = { ArrowRight: () => near(p + 1), ArrowLeft: () => near(p - 1), Home: () => near(0), End: () => near(sides[0].frames.width - 1), ArrowUp: () => go(step - 1), ArrowDown: () => go(step + 1) };
      if (!keys[event.key]) return;
      event.preventDefault();
      clearTimeout(hovering);
      keys[event.key]();
    });
  };
  sides.forEach(({ list }) => reading(list));

  const header = () => {
    const step = model.get("step"), last = model.get("last");
    steps.set(step, step >= last ? `finished, ${last} steps` : `before ${step} of ${last}`, last);
    const known = model.get("sides").some((each) => each.has_confidence), most = model.get("sides")[0].most_entropy;
    const option = (name, words, known) => [name, known ? `${words} at commit` : `${words} (not measured)`, !known];
    colours.fill([["commit", "step of commit"], option("confidence", "probability", known), option("entropy", "entropy", most > 0)], model.get("colour"));
    row.select.value = model.get("row");
    row.node.hidden = model.get("rows") < 2;
    legend.set(...{ commit: ["step 0", `step ${Math.max(0, last - 1)}`], confidence: ["0 %", "100 %"], entropy: ["0", `${rounded(most)} nats`] }[model.get("colour")]);
    const { width } = sides[0].frames, first = model.get("first"), shown = model.get("shown");
    pages.hidden = width <= shown;
    earlier.disabled = first === 0;
    later.disabled = first + shown >= width;
    where.textContent = `positions ${first} to ${Math.min(first + shown, width) - 1} of ${width}`;
  };
  const drawTokens = () => {
    header();
    sides.forEach((each, i) => each.draw(sides[1 - i]));
  };
  const mask = make("span", { class: "token masked" }, MASK_SIGN);
  const keys = [make("span", {}, legend.node), make("span", {}, mask, "masked"), make("span", {}, make("span", { class: "token fresh" }, "new"), "changed by the last step")];
  if (sides.length > 1) keys.push(make("span", {}, make("span", { class: "token unlike" }, "unlike"), "differs from the other run"));
  if (sides.some(({ frames }) => frames.computed)) keys.push(make("span", {}, make("span", { class: "token still" }, "kept"), "not computed by this step"));
  const each = () => (order.group() > 1 ? ` Each column holds ${order.group()} positions.` : "");
  const note = make("p", { class: "quiet" }), message = make("p", { class: "message", role: "status" });
  el.append(make("div", { class: "dlens denoising" },
    make("div", { class: "controls" }, play, steps.node),
    make("div", { class: "controls" }, colours.node, row.node),
    message,
    make("p", { class: "legend" }, ...keys),
    make("div", { class: "columns" }, ...sides.map(({ node }) => node)),
    pages, make("h3", {}, "The whole run"), note, order.node, detail.node, lens.node));
  // Before the pictures, which follow a frame later.
  if (model.alone) for (const name of ["step", "position", "layer", "thoughts"]) model.on(`change:${name}`, answer);
  answer();
  const ends = [
    hidePicture(model),
    follow(model, ["sides"], () => { sides.forEach((each) => each.load()); drawTokens(); order.draw(); }),
    follow(model, ["first"], () => { sides.forEach((each) => each.page()); drawTokens(); }),
    follow(model, ["step", "position", "colour"], () => {
      drawTokens();
      order.draw();
      const what = WHAT[model.get("colour")];
      note.textContent = `Position to the right, step downwards${sides.length > 1 ? ", of the first run" : ""}; colour: ${what}.${each()}`;
    }),
    follow(model, ["detail", "step"], detail.draw),
    follow(model, ["lens", "layer", "position"], lens.draw),
    follow(model, ["message"], () => { message.textContent = model.get("message"); message.hidden = !message.textContent; }),
  ];
  return () => { stop(); ends.forEach((end) => end()); order.stop(); lens.stop(); };
}

export default { render };
