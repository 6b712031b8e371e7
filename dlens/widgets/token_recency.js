// Similarity by distance for several models, the recency index by layer, and one model token by token.

function render({ model, el }) {
  const near = plot({ label: "similarity of two tokens by distance", xName: "distance in tokens", yName: "cosine" });
  const index = plot({ label: "recency index by layer", xName: "layer", yName: "recency index" });
  // What is on screen carries its own labels: what was just chosen may be newer, while the kernel works.
  const group = () => model.get("matrix").group ?? 1;
  const tokens = heatmap({
    label: "similarity token by token; arrow keys move to another pair",
    rowName: "position", columnName: "position", aspect: 0.8, most: 420,
    read: () => {
      const { positions, tokens, cosine } = model.get("pair");
      if (!positions) return "";
      return `positions ${positions[0]} ${JSON.stringify(tokens[0])} and ${positions[1]} ${JSON.stringify(tokens[1])}: cosine ${rounded(cosine)}`;
    },
    pick: (row, column) => put(model, { position: row * group(), position_b: column * group() }),
  });
  const tokensScale = scale("", "");
  const layers = model.get("layers"), levels = model.get("levels");
  const layer = slider("Layer", layers - 1, (value) => put(model, { layer: value }));
  const noise = slider("Noise level", levels.length, (i) => put(model, { noise: i ? levels[i - 1] : -1 }));
  const step = slider("Step", 0, (i) => put(model, { step: model.get("steps")[i] }));
  const whose = choice("Tokens of", model.get("names").map((name, i) => [i, name]), 0, (value) => put(model, { chosen: Number(value) }));
  const message = make("p", { class: "message", role: "status" }), note = make("p", { class: "quiet" });
  const waiting = make("p", { class: "quiet", role: "status" }, "Waiting for the kernel: the pictures are of what was chosen before.");
  const nearTitle = make("h3", {}), tokensTitle = make("h3", {});
  const part = make("div", {}, tokensScale.node, tokens.node);
  const root = make("div", { class: "dlens recency" },
    make("div", { class: "controls" }, layer.node, ...(levels.length ? [noise.node] : [])),
    waiting,
    make("div", { class: "columns" },
      make("section", {}, nearTitle, near.node),
      make("section", {}, make("h3", {}, "Recency index: near minus far"), index.node)),
    tokensTitle,
    make("div", { class: "controls" }, whose.node, step.node),
    message, note, part);
  el.append(root);

  const words = (level) => (level < 0 ? "all" : `${10 * level} to ${10 * level + 10} % masked`);
  const drawControls = () => {
    layer.set(model.get("layer"), `${model.get("layer")} (0 to ${layers - 1})`, layers - 1);
    noise.set(levels.indexOf(model.get("noise")) + 1, words(model.get("noise")), levels.length);
    const steps = model.get("steps"), i = steps.indexOf(model.get("step")), masked = model.get("noises")[i];
    step.node.hidden = steps.length < 2;
    step.set(i, `${model.get("step")}${masked == null ? "" : `, ${Math.round(100 * masked)} % masked`}`, Math.max(0, steps.length - 1));
    whose.select.value = model.get("chosen");
    whose.node.hidden = model.get("names").length < 2;
  };
  const drawProfiles = () => {
    const profiles = model.get("profiles");
    nearTitle.textContent = `Similarity by distance, layer ${profiles[0]?.layer ?? model.get("layer")}`;
    const lines = (key, first) => profiles.map((profile) => {
      const y = Array.from(unpack(profile[key]).values);
      return { name: `${profile.name} (${profile.about})`, x: y.map((_, i) => i + first), y };
    });
    const whole = lines("similarity", 1), end = Math.max(1, ...whole.map(({ y }) => y.findLastIndex(Number.isFinite) + 1));
    near.draw({ series: whole.map((line) => ({ ...line, x: line.x.slice(0, end), y: line.y.slice(0, end) })) });
    index.draw({ series: lines("index", 0), mark: model.get("layer") });
  };
  const drawTokens = () => {
    const held = model.get("matrix");
    message.hidden = !model.get("message");
    message.textContent = model.get("message");
    part.hidden = !held.data;
    note.textContent = held.data && group() > 1 ? `Each cell is the mean of ${group()} by ${group()} tokens.` : "";
    note.hidden = !note.textContent;
    tokensTitle.textContent = held.data ? `Token by token, layer ${held.layer}` : "Token by token";
    if (!held.data) return;
    const { values, shape } = unpack(held);
    const low = values.reduce((a, b) => (b < a ? b : a), 1);
    tokensScale.set(rounded(low), "1");
    const cell = (name) => Math.min(Math.floor(model.get(name) / group()), shape[0] - 1);
    tokens.draw({ values, rows: shape[0], columns: shape[1], rowStep: group(), columnStep: group(), low, high: 1, at: [cell("position"), cell("position_b")] });
  };
  const drawWaiting = () => {
    const chosen = (own, names) => !own || !Object.keys(own).length || names.every((name) => own[name] === model.get(name));
    const behind = !(chosen(model.get("profiles")[0], ["layer", "noise"]) && chosen(model.get("matrix"), ["layer", "step", "chosen"]));
    waiting.hidden = !behind;
    root.setAttribute("aria-busy", behind);
  };
  const ends = [
    hidePicture(model),
    follow(model, ["layer", "noise", "step", "steps", "chosen", "noises"], drawControls),
    follow(model, ["profiles", "layer"], drawProfiles),
    follow(model, ["matrix", "pair", "message", "position", "position_b"], drawTokens),
    follow(model, ["layer", "noise", "step", "chosen", "profiles", "matrix"], drawWaiting),
  ];
  return () => { ends.forEach((end) => end()); [near, index, tokens].forEach((each) => each.stop()); };
}

export default { render };
