// Layers by layers, channels by layer, one channel by layer and token, and the tokens and steps of a chosen place.

function render({ model, el }) {
  const layers = model.get("layers");
  const of = (name) => { const held = model.get(name); return held.data ? { ...held, ...unpack(held) } : null; };
  const range = (values) => {
    let low = Infinity, high = -Infinity;
    values.forEach((v) => { if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); } });
    return low <= high ? { low, high } : { low: 0, high: 1 };
  };

  // What is on screen carries its own labels: what was just chosen may be newer, while the kernel works.
  const measure = () => ((model.get("similarity").kind ?? model.get("kind")) === "cka" ? "CKA" : "cosine");
  const left = () => model.get("similarity").without ?? (model.get("without") ? model.get("channel") : -1);
  const pairs = heatmap({
    label: "similarity of every two layers; arrow keys move to another pair",
    rowName: "layer", columnName: "layer", aspect: 0.85, most: 360,
    read: (row, column, value) => `layers ${row} and ${column}: ${measure()} ${rounded(value)}`,
    pick: (layer, layer_b) => put(model, { layer, layer_b }),
  });
  const pairsScale = scale("", "");
  const profile = plot({ label: "energy share of the largest channels by layer", xName: "layer", yName: "share of energy" });
  const tokens = heatmap({
    label: "share of the channel by layer and token; arrow keys move",
    rowName: "layer", columnName: "token position", aspect: 0.4, most: 300,
    read: (row, column, value) => `layer ${row}, ${group() > 1 ? "around " : ""}position ${first() + column * group()} ${here(column)}: ${(100 * value).toFixed(1)} % of the energy in channel ${model.get("token_shares").channel}`,
    pick: (layer, column) => put(model, { layer, position: column * group() }),
  });
  const first = () => model.get("detail").first ?? 0;
  const group = () => model.get("token_shares").group ?? 1;
  // The token is named once the kernel said which it is.
  const here = (column) => {
    const { position, token } = model.get("detail");
    return position != null && Math.floor((position - first()) / group()) === column ? JSON.stringify(token) : "";
  };
  const tokensScale = scale("0 %", "");
  const bySteps = plot({ label: "share of the channel by step", xName: "step", yName: "share of energy", tall: 170 });

  const steps = model.get("steps");
  const time = slider("Step", Math.max(0, steps.length - 1), (i) => put(model, { step: model.get("steps")[i] }));
  const kind = choice("Similarity", [["cosine", "cosine"], ["cka", "CKA (linear, debiased)"]], model.get("kind"), (value) => put(model, { kind: value }));
  const channel = choice("Channel", [], "", (value) => put(model, { channel: Number(value) }));
  const layer = choice("Layer", Array.from({ length: layers }, (_, i) => [i, String(i)]), 0, (value) => put(model, { layer: Number(value) }));
  const without = make("input", { type: "checkbox", onchange: () => put(model, { without: without.checked }) });
  const withoutText = make("span", {});
  const ablate = make("button", { "aria-pressed": "false", onclick: () => put(model, { ablated: !model.get("ablated") }) });
  const status = make("p", { class: "quiet", role: "status" });
  const waiting = make("p", { class: "quiet", role: "status" }, behindWords(model));
  const message = make("p", { class: "message", role: "status" });
  const name = make("h3", {});
  const place = make("h3", {});
  const chosen = make("div", {});
  const texts = make("div", { class: "columns" });
  const tokenPart = make("section", {}, make("h3", {}, "One channel by layer and token"), tokensScale.node, tokens.node);
  const detailPart = make("section", {}, place, make("div", { class: "columns" }, chosen, bySteps.node));
  const pairTitle = make("h3", {}), note = make("p", { class: "quiet" });

  // Not "collapse", which is a class of Tailwind's that hides, in marimo.
  const root = make("div", { class: "dlens channels" },
    name,
    make("div", { class: "controls" }, ...(steps.length > 1 ? [time.node] : []), kind.node, channel.node, layer.node, make("label", {}, without, withoutText), ablate),
    status, waiting, message,
    make("div", { class: "columns" },
      make("section", {}, pairTitle, pairsScale.node, pairs.node),
      make("section", {}, make("h3", {}, "Energy share of the largest channels"), profile.node)),
    tokenPart, note, detailPart, texts);
  el.append(root);

  const drawPairs = () => {
    const held = of("similarity");
    pairTitle.textContent = `Similarity of layers (${measure()}${left() >= 0 ? ` without channel ${left()}` : ""})`;
    message.textContent = model.get("message");
    message.hidden = !model.get("message");
    if (!held) { pairs.draw(null); pairsScale.node.hidden = true; return; }
    const ends = range(held.values);
    pairsScale.node.hidden = false;
    pairsScale.set(rounded(ends.low), rounded(ends.high));
    pairs.draw({ values: held.values, rows: held.shape[0], columns: held.shape[1], ...ends, at: [model.get("layer"), model.get("layer_b")] });
  };
  const drawShares = () => {
    const held = of("shares"), channels = model.get("channels");
    const x = Array.from({ length: layers }, (_, i) => i);
    const series = held ? channels.map((c, i) => ({ name: `channel ${c}`, x, y: x.map((l) => held.values[l * channels.length + i]) })) : [];
    profile.draw({ series, mark: model.get("layer") });
  };
  const drawTokens = () => {
    const held = of("token_shares");
    tokenPart.hidden = detailPart.hidden = !held;
    if (!held) { note.textContent = "Tokens are shown for records that captured the stream: add .capture('resid_post', steps=[0]) to the trace."; return; }
    note.textContent = group() > 1 ? `Each column is the mean of ${group()} positions.` : "";
    const { high } = range(held.values);
    tokensScale.set("0 %", `${(100 * high).toFixed(0)} %`);
    tokens.draw({ values: held.values, rows: held.shape[0], columns: held.shape[1], columnStep: group(), low: 0, high, at: [model.get("layer"), Math.min(Math.floor(model.get("position") / group()), held.shape[1] - 1)] });
  };
  const drawDetail = () => {
    const detail = model.get("detail");
    if (!detail.tokens) return;
    place.textContent = `Channel ${detail.channel} after layer ${detail.layer}: its tokens and steps`;
    const word = (text) => make("span", { class: "token" }, visible(text));
    const rows = detail.tokens.map(([position, text, share]) => [
      make("button", { onclick: () => put(model, { position: position - detail.first }), "aria-label": `go to position ${position}` }, String(position)), word(text), `${(100 * share).toFixed(1)} %`]);
    const largest = detail.largest.map(([c, p]) => `${c} (${(100 * p).toFixed(0)} %)`).join(", ");
    chosen.replaceChildren(make("div", { class: "scroll" }, table(["position", "token", "share"], rows)), make("p", { class: "quiet" }, `Largest channels at position ${detail.position} `, word(detail.token), `: ${largest}`));
    bySteps.node.hidden = detail.steps.length < 2;
    bySteps.draw({ series: [{ name: `channel ${detail.channel}, layer ${detail.layer}`, x: detail.steps.map((s) => s[0]), y: detail.steps.map((s) => s[1]) }], mark: model.get("step") });
  };
  // What is chosen and what is on screen, part by part: they differ while the kernel works.
  const behind = () => {
    const held = (name, wanted) => { const own = model.get(name); return Object.keys(own).length === 0 || Object.keys(wanted).every((key) => own[key] === wanted[key]); };
    const { step, channel, layer, kind } = Object.fromEntries(["step", "channel", "layer", "kind"].map((name) => [name, model.get(name)]));
    return !(held("similarity", { kind, step, without: model.get("without") ? channel : -1 }) && held("token_shares", { channel, step }) && held("detail", { channel, layer, step }));
  };
  const drawWaiting = () => { waiting.hidden = !behind(); root.setAttribute("aria-busy", behind()); };
  const drawControls = () => {
    const c = model.get("channel"), i = model.get("steps").indexOf(model.get("step"));
    const other = model.get("other_name");
    name.textContent = model.get("name");
    time.set(i, `${model.get("step")} (${i + 1} of ${steps.length} captured)`);
    kind.select.value = model.get("kind");
    channel.fill(model.get("channels").map((each) => [each, String(each)]), c);
    layer.select.value = model.get("layer");
    without.checked = model.get("without");
    withoutText.textContent = `leave out channel ${c}`;
    channel.node.hidden = without.parentNode.hidden = c < 0;
    ablate.hidden = !model.get("can_ablate") || !!model.alone;
    ablate.textContent = model.get("ablated") ? "✓ Ablated" : other ? `Show ${other}` : `Ablate channel ${c}`;
    ablate.setAttribute("aria-pressed", model.get("ablated"));
    status.textContent = model.get("status");
    status.hidden = !model.get("status");
    const { plain, ablated } = model.get("texts");
    const boxes = [["As it is", plain], [other || `Without channel ${c}`, ablated]].filter(([, text]) => text);
    texts.replaceChildren(...boxes.map(([title, text]) => make("section", {}, make("h3", {}, title), make("p", { class: "token text" }, text))));
  };
  const ends = [
    hidePicture(model),
    follow(model, ["name", "step", "kind", "channel", "channels", "layer", "without", "ablated", "status", "texts", "can_ablate"], drawControls),
    follow(model, ["similarity", "layer", "layer_b", "message", "kind", "without", "channel"], drawPairs),
    follow(model, ["shares", "layer"], drawShares),
    follow(model, ["token_shares", "layer", "position", "detail"], drawTokens),
    follow(model, ["detail"], drawDetail),
    follow(model, ["step", "channel", "layer", "kind", "without", "similarity", "token_shares", "detail"], drawWaiting),
  ];
  return () => { ends.forEach((end) => end()); [pairs, profile, tokens, bySteps].forEach((each) => each.stop()); };
}

export default { render };
