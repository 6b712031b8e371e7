// Blocks on a strip, what skipping them saves and costs, and the plan as a line of Python.

function render({ model, el }) {
  const layers = model.get("layers");
  const strip = make("div", { class: "strip", role: "group", "aria-label": "blocks; arrow keys move, space skips or keeps" });
  const blocks = Array.from({ length: layers }, (_, layer) => make("button", { "data-layer": layer, tabindex: layer ? -1 : 0, onclick: () => toggle(layer) }));
  strip.append(...blocks);
  const toggle = (layer) => {
    const plan = model.get("plan");
    put(model, { plan: plan.includes(layer) ? plan.filter((each) => each !== layer) : [...plan, layer].sort((a, b) => a - b) });
  };
  strip.addEventListener("keydown", (event) => {
    const here = blocks.indexOf(document.activeElement);
    const next = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: layers - 1 }[event.key];
    if (next === undefined || !blocks[next]) return;
    event.preventDefault();
    blocks.forEach((block, i) => { block.tabIndex = i === next ? 0 : -1; });
    blocks[next].focus();
  });
  const known = () => model.get("redundancy").map((value) => (value == null ? NaN : value));
  const ends = () => {
    const values = (layers > 1 ? known().slice(1) : known()).filter(Number.isFinite);
    return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  };
  const legend = scale("", "");
  const count = make("input", { type: "number", min: 0, max: layers - 1, value: Math.max(1, Math.round(layers / 8)), "aria-label": "how many blocks" });
  const suggest = make("button", { onclick: () => {
    const values = known(), order = values.map((_, i) => i).filter((i) => Number.isFinite(values[i])).sort((a, b) => values[b] - values[a]);
    put(model, { plan: order.slice(0, Math.max(0, Number(count.value))).sort((a, b) => a - b) });
  } }, "Skip the most redundant");
  const clear = make("button", { onclick: () => put(model, { plan: [] }) }, "Keep all");
  const live = make("input", { type: "checkbox", onchange: () => put(model, { live: live.checked }) });
  const work = make("button", { class: "work", onclick: () => put(model, { running: !model.get("running") }) });
  const bar = make("progress", { max: 1, "aria-label": "progress" });
  const status = make("span", { class: "quiet", role: "status" });
  const cards = make("div", { class: "cards" });
  const code = make("input", { readonly: true, class: "token code", "aria-label": "the plan as Python", onfocus: () => code.select() });
  const copy = make("button", { onclick: async () => {
    code.select();
    try { await navigator.clipboard.writeText(code.value); } catch { document.execCommand("copy"); }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  } }, "Copy");
  const before = make("div", { class: "scroll" });
  el.append(make("div", { class: "dlens planner" },
    make("h3", {}, `${model.get("name")} on ${model.get("task")}`),
    make("p", { class: "quiet" }, "Choose blocks to skip. Colour: cosine of what enters and leaves a block; bright ones change the stream least."),
    strip,
    make("p", { class: "legend" }, make("span", {}, legend.node), make("span", {}, make("span", { class: "skipped sample" }, "3"), "skipped")),
    make("div", { class: "controls" }, make("span", { class: "suggest" }, suggest, count), clear, make("label", {}, live, "measure at once"), work),
    make("div", { class: "controls" }, bar, status),
    cards,
    make("div", { class: "controls export" }, code, copy),
    make("h3", {}, "Plans measured"), before));

  const drawStrip = () => {
    const plan = model.get("plan"), values = known(), [low, high] = ends();
    blocks.forEach((block, layer) => {
      const value = values[layer], colour = Number.isFinite(value) ? ramp((value - low) / (high - low || 1)) : null;
      const skipped = plan.includes(layer);
      block.textContent = layer;
      block.className = skipped ? "skipped" : "";
      block.style.background = colour ? paint(colour) : "";
      block.style.color = colour ? inkOn(colour) : "";
      block.setAttribute("aria-pressed", skipped);
      block.setAttribute("aria-label", `block ${layer}${Number.isFinite(value) ? `, cosine ${rounded(value)}` : ""}${skipped ? ", skipped" : ""}`);
      block.title = block.getAttribute("aria-label");
    });
    legend.node.hidden = !values.length;
    legend.set(`cosine ${rounded(low)}`, rounded(high));
    suggest.disabled = !values.length;
    code.value = model.get("code");
  };
  const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
  const card = (title, value, more, extra = []) => make("div", { class: "card" }, make("h4", {}, title), make("p", { class: "value" }, value), make("p", { class: "quiet" }, more), ...extra);
  const interval = ({ low, high, accuracy, baseline }) => {
    if (accuracy == null) return [];
    const mark = (name, left, width) => {
      const node = make("span", { class: name });
      node.style.left = `${100 * left}%`;
      if (width != null) node.style.width = `${100 * width}%`;
      return node;
    };
    const track = make("div", { class: "track", "aria-hidden": "true" }, ...(low == null ? [] : [mark("range", low, Math.max(high - low, 0.005))]), mark("now", accuracy), mark("was", baseline));
    const ends = make("p", { class: "quiet ends" }, make("span", {}, "0 %"), make("span", {}, "100 %"));
    return [track, ends, make("p", { class: "quiet ends marks" }, make("span", {}, "▏as it is"), make("span", {}, "● with the plan"))];
  };
  const drawCards = () => {
    const found = model.get("result");
    const { flops_saved, loss, baseline_loss, accuracy, baseline, low, high, retained, retained_low, retained_high, n } = found;
    const loses = loss == null || baseline_loss == null ? "–" : `${loss - baseline_loss < 0 ? "−" : "+"}${Math.abs(loss - baseline_loss).toFixed(3)}`;
    cards.replaceChildren(
      card("FLOPs saved", percent(flops_saved), "counted on one forward"),
      card("Loss", loses, loss == null ? "nats a token" : `nats a token; ${baseline_loss.toFixed(3)} as it is, ${loss.toFixed(3)} with the plan`),
      card("Accuracy", percent(accuracy), accuracy == null ? "95 % interval over problems" : `95 % interval ${low == null ? "not known yet" : `${percent(low)} to ${percent(high)}`}; ${percent(baseline)} as it is; ${n} of ${model.get("n")} problems`, interval(found)),
      card("Accuracy retained", percent(retained), retained == null ? "of the accuracy as it is" : retained_low == null ? "too few solved problems for an interval" : `95 % interval ${percent(retained_low)} to ${percent(retained_high)}, in pairs`));
  };
  const drawWork = () => {
    const running = model.get("running");
    work.textContent = running ? "■ Stop" : "▶ Measure";
    live.checked = model.get("live");
    bar.hidden = !running;
    if (model.get("progress") > 0) bar.value = model.get("progress"); else bar.removeAttribute("value");
    status.textContent = model.get("status");
  };
  const drawHistory = () => {
    const rows = model.get("history").map((each) => [
      make("button", { onclick: () => put(model, { plan: [...each.plan] }), "aria-label": `take plan ${each.plan.join(", ") || "none"}` }, each.plan.join(", ") || "none"),
      percent(each.flops_saved), each.loss == null ? "–" : each.loss.toFixed(3), percent(each.accuracy), each.low == null ? "–" : `${percent(each.low)} to ${percent(each.high)}`]);
    before.replaceChildren(rows.length ? table(["skipped", "FLOPs saved", "loss", "accuracy", "95 % interval"], rows) : make("p", { class: "quiet" }, "none yet"));
  };
  const stops = [
    hidePicture(model),
    follow(model, ["plan", "redundancy", "code"], drawStrip),
    follow(model, ["result", "n"], drawCards),
    follow(model, ["running", "progress", "status", "live"], drawWork),
    follow(model, ["history"], drawHistory),
  ];
  return () => stops.forEach((stop) => stop());
}

export default { render };
