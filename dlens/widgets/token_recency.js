// Similarity by distance for several models, the recency index by layer, and one model token by token.

const LEAST_PAIRS = 5;

function render({ model, el }) {
  const near = plot({ label: "similarity of two tokens by distance", xName: "distance in tokens", yName: "cosine" });
  const index = plot({ label: "recency index by layer", xName: "layer", yName: "recency index" });
  // What is on screen carries its own labels: what was just chosen may be newer, while the kernel works.
  const held = (i) => model.get("matrices")[i] ?? {};
  const cards = model.get("names").map((name, i) => {
    const title = make("h3", {}), note = make("p", { class: "quiet" });
    const group = () => held(i).group ?? 1;
    const map = heatmap({
      label: `similarity token by token, ${name}; arrow keys move to another pair`,
      rowName: "position", columnName: "position", aspect: 0.9, most: 420,
      read: (row, column, value) => {
        const { tokens, first } = held(i), pair = i === model.get("chosen") ? model.get("pair") : {};
        const place = (n) => first + n * group(), asked = pair.positions?.[0] === place(row) && pair.positions?.[1] === place(column);
        const words = asked ? pair.tokens : [tokens[row], tokens[column]];
        const what = row === column ? "the same token" : `cosine ${rounded(asked ? pair.cosine : value)}`;
        return `positions ${place(row)} ${JSON.stringify(words[0])} and ${place(column)} ${JSON.stringify(words[1])}: ${what}`;
      },
      pick: (row, column) => put(model, { position: row * group(), position_b: column * group() }),
    });
    const draw = (most) => {
      const own = held(i);
      node.hidden = !own.data;
      if (!own.data) return;
      title.textContent = `${own.name}, layer ${own.layer}, step ${own.step}`;
      note.textContent = own.group > 1 ? `Each cell is the mean of ${own.group} by ${own.group} tokens.` : "";
      note.hidden = !note.textContent;
      const { values, shape } = unpack(own), cell = (name) => Math.min(Math.floor(model.get(name) / group()), shape[0] - 1);
      const shown = values.map((value, n) => (n % (shape[1] + 1) ? value : NaN));
      map.draw({ values: shown, rows: shape[0], columns: shape[1], rowStep: own.group, columnStep: own.group, low: -most, high: most, points: AROUND, at: [cell("position"), cell("position_b")], names: own.group > 1 ? null : own.tokens });
    };
    const node = make("section", {}, title, map.node, note);
    return { node, draw, stop: map.stop };
  });
  const tokensScale = scale("", "", AROUND);
  const layers = model.get("layers"), levels = model.get("levels");
  const layer = slider("Layer", layers - 1, (value) => put(model, { layer: value }));
  const noise = slider("Noise level", levels.length, (i) => put(model, { noise: i ? levels[i - 1] : -1 }));
  const step = slider("Step", 0, (i) => put(model, { step: model.get("steps")[i] }));
  const whose = choice("Tokens of", model.get("names").map((name, i) => [i, name]), 0, (value) => put(model, { chosen: Number(value) }));
  const message = make("p", { class: "message", role: "status" }), few = make("p", { class: "quiet" });
  const waiting = make("p", { class: "quiet", role: "status" }, behindWords(model));
  const nearTitle = make("h3", {});
  const part = make("div", {}, make("p", { class: "quiet" }, "Cosine of two tokens, without that of a token with itself: blue below 0, red above. ", tokensScale.node), make("div", { class: "columns" }, ...cards.map(({ node }) => node)));
  const root = make("div", { class: "dlens recency" },
    make("div", { class: "controls" }, layer.node, ...(levels.length ? [noise.node] : [])),
    waiting,
    make("div", { class: "columns" },
      make("section", {}, nearTitle, near.node, few),
      make("section", {}, make("h3", {}, "Recency index: near minus far"), index.node)),
    make("h3", {}, "Token by token"),
    make("div", { class: "controls" }, whose.node, step.node),
    message, part);
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
    // The farthest distances have few pairs, whose mean jumps about: they are left out where others have more.
    const pairs = profiles.map((profile) => unpack(profile.pairs).values), most = Math.max(1, ...pairs.map((own) => own[0] ?? 0));
    const least = Math.min(LEAST_PAIRS, most);
    const whole = lines("similarity", 1).map((line, i) => ({ ...line, y: line.y.map((value, n) => (pairs[i][n] >= least ? value : NaN)) }));
    const end = Math.max(1, ...whole.map(({ y }) => y.findLastIndex(Number.isFinite) + 1));
    few.textContent = pairs.some((own) => own.some((n) => n > 0 && n < least)) ? `Distances with fewer than ${least} pairs are left out.` : "";
    few.hidden = !few.textContent;
    near.draw({ series: whole.map((line) => ({ ...line, x: line.x.slice(0, end), y: line.y.slice(0, end) })) });
    index.draw({ series: lines("index", 0), mark: model.get("layer") });
  };
  const drawTokens = () => {
    message.hidden = !model.get("message");
    message.textContent = model.get("message");
    const known = model.get("matrices").filter((own) => own.data).map(unpack);
    part.hidden = !known.length;
    const most = Math.max(0.01, ...known.map(({ values, shape }) => values.reduce((a, b, n) => (n % (shape[1] + 1) && Math.abs(b) > a ? Math.abs(b) : a), 0)));
    tokensScale.set(rounded(-most).replace("-", "−"), rounded(most));
    cards.forEach((card) => card.draw(most));
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
    follow(model, ["matrices", "pair", "message", "position", "position_b"], drawTokens),
    follow(model, ["layer", "noise", "step", "chosen", "profiles", "matrix"], drawWaiting),
  ];
  return () => { ends.forEach((end) => end()); [near, index, ...cards].forEach((each) => each.stop()); };
}

export default { render };
