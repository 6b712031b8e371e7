// Blocks on a strip, what skipping them saves and costs, and the plan as a line of Python.

// A plan as a result has it: places, the part of them that is skipped, and the third of decoding.
const planned = (model) => ({ plan: model.get("plan"), part: model.get("part"), steps: model.get("steps") });
const key = ({ plan, part, steps }) => (plan.length ? JSON.stringify([plan, part, steps]) : "");
const planWords = ({ plan, part, steps }) => (plan.length ? [plan.join(", "), ...(part === "block" ? [] : [HALVES[part]]), ...(steps ? [`${steps} third`] : [])].join(", ") : "none");
const HALVES = { attn: "attention", mlp: "MLP" };

// What each plan saves against what it costs; a click takes the plan.
function trade(model) {
  let dots = [];
  const readout = make("p", { class: "readout", "aria-live": "polite" });
  const known = () => {
    const now = model.get("result"), all = model.get("history").filter((each) => !now.plan || key(each) !== key(now));
    return [...all, ...(now.plan ? [now] : [])].filter((each) => each.flops_saved != null && each.loss != null && each.baseline_loss != null);
  };
  const words = (each) => `${each.plan.length ? `without ${planWords(each)}` : "as it is"}: ${(100 * each.flops_saved).toFixed(1)} % of FLOPs saved, loss ${signed(each.loss - each.baseline_loss)} nats a token${each.accuracy == null ? "" : `, ${solved(each)}`}`;
  const paper = surface({ role: "img", "aria-label": "FLOPs saved against the rise of the loss, a dot for each plan that was measured; the table has the numbers" }, () => (known().length ? 230 : 0), (g, width, height, ink) => {
    const plans = known();
    dots = [];
    if (!plans.length) return;
    const xs = plans.map((each) => 100 * each.flops_saved), ys = plans.map((each) => each.loss - each.baseline_loss);
    const right = Math.max(5, ...xs) * 1.12, low = Math.min(0, ...ys), high = Math.max(0.05, ...ys), margin = (high - low) * 0.12;
    const box = { x: 64, y: 8, w: width - 90, h: height - 54 }, bottom = low - margin, top = high + margin;
    const px = (x) => box.x + x / right * box.w, py = (y) => box.y + (top - y) / (top - bottom) * box.h;
    g.textAlign = "right"; g.textBaseline = "middle";
    for (const value of ticks(bottom, top, box.h, 30)) {
      g.globalAlpha = value === 0 ? 0.5 : 0.2; g.beginPath(); g.moveTo(box.x, py(value)); g.lineTo(box.x + box.w, py(value)); g.stroke(); g.globalAlpha = 1;
      g.fillText(String(value).replace("-", "−"), box.x - 5, py(value));
    }
    g.textAlign = "center"; g.textBaseline = "top";
    for (const value of ticks(0, right, box.w, 60)) g.fillText(String(value), px(value), box.y + box.h + 5);
    g.fillText("FLOPs saved, % of one forward", box.x + box.w / 2, box.y + box.h + 24);
    g.save(); g.translate(2, box.y + box.h / 2); g.rotate(-Math.PI / 2); g.fillText("rise of the loss", 0, 0); g.restore();
    const now = key(planned(model));
    plans.forEach((each, i) => {
      const [x, y] = [px(xs[i]), py(ys[i])], chosen = key(each) === now;
      g.fillStyle = chosen ? LINES[1] : LINES[0];
      g.beginPath(); g.arc(x, y, chosen ? 7 : 5, 0, 2 * Math.PI); g.fill();
      g.fillStyle = ink; g.textAlign = "left"; g.textBaseline = "bottom";
      const name = planWords(each);
      g.fillText(name.length > 16 ? `${name.slice(0, 15)}…` : name, x + 8, y - 3);
      dots.push({ x, y, each });
    });
  });
  const near = (event) => {
    const { left, top } = paper.canvas.getBoundingClientRect();
    const far = dots.map(({ x, y, each }) => [Math.hypot(event.clientX - left - x, event.clientY - top - y), each]).filter(([d]) => d < 24);
    return far.sort((a, b) => a[0] - b[0])[0]?.[1];
  };
  paper.canvas.addEventListener("mousemove", (event) => { const each = near(event); if (each) readout.textContent = words(each); });
  paper.canvas.addEventListener("click", (event) => { const each = near(event); if (each) take(model, each); });
  const node = make("div", {}, make("h3", {}, "What is saved, and what it costs"), paper.node, readout);
  const draw = () => {
    const plans = known();
    node.hidden = !plans.length;
    const now = plans.find((each) => key(each) === key(planned(model)));
    readout.textContent = now ? words(now) : model.get("steps") && model.get("plan").length ? "A plan in a third of decoding has no loss, and no dot." : "";
    paper.redraw();
  };
  return { node, draw, stop: paper.stop };
}

const take = (model, { plan, part, steps }) => put(model, { plan: [...plan], part, steps });
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
const solved = ({ accuracy, n }) => `${Math.round(accuracy * n)} of ${n} solved`;

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
  const whole = model.get("whole"), cannot = model.get("no_thirds");
  const parts = [["block", "whole block"], ["attn", "attention"], ["mlp", "MLP"]].map(([part, name]) => [part, whole.includes(part) ? `${name} (not alone in this model)` : name, whole.includes(part)]);
  const part = choice("Part", parts, "block", (value) => put(model, { part: value }));
  const thirds = [["", "all"], ...["early", "middle", "late"].map((third) => [third, `${third} third`, cannot !== ""])];
  const steps = choice("Steps", thirds, "", (value) => put(model, { steps: value || null }));
  const reason = make("p", { class: "quiet" }, `No thirds here: ${cannot}.`);
  reason.hidden = !cannot;
  const live = make("input", { type: "checkbox", onchange: () => put(model, { live: live.checked }) });
  const work = make("button", { class: "work", onclick: () => put(model, { running: !model.get("running") }) });
  const bar = make("progress", { max: 1, "aria-label": "progress" });
  const status = make("span", { class: "quiet", role: "status" });
  const cards = make("div", { class: "cards" }), about = make("p", { class: "quiet", role: "status" });
  const code = make("input", { readonly: true, class: "token code", "aria-label": "the plan as Python", onfocus: () => code.select() });
  // An input would be cut at its end on paper.
  const printed = make("code", { class: "token printed", "aria-hidden": "true" });
  const copy = make("button", { onclick: async () => {
    code.select();
    try { await navigator.clipboard.writeText(code.value); } catch { document.execCommand("copy"); }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  } }, "Copy");
  const before = make("div", { class: "scroll" }), picture = trade(model);
  const measuring = model.alone ? [] : [make("label", {}, live, "measure at once"), work];
  el.append(make("div", { class: "dlens planner" },
    make("h3", {}, `${model.get("name")} on ${model.get("task")}`),
    make("p", { class: "quiet" }, "Choose blocks to skip. Colour: cosine of what enters and leaves a block; bright ones change the stream least."),
    strip,
    make("p", { class: "legend" }, make("span", {}, legend.node), make("span", {}, make("span", { class: "skipped sample" }, "3"), "skipped")),
    make("div", { class: "controls" }, make("span", { class: "suggest" }, suggest, count), clear, part.node, steps.node, ...measuring),
    reason,
    make("div", { class: "controls" }, bar, status),
    about, cards,
    make("div", { class: "controls export" }, code, printed, copy),
    picture.node, make("h3", {}, "Plans measured"), before));
  // Without a kernel: what was measured of the plan when the page was written.
  if (model.alone) for (const name of ["plan", "part", "steps"]) model.on(`change:${name}`, () => {
    const now = planned(model), more = `${now.part === "block" ? "" : `, part="${now.part}"`}${now.steps ? `, steps="${now.steps}"` : ""}`;
    model.set("result", model.get("history").find((each) => key(each) === key(now)) ?? {});
    model.set("code", `dlens.trace(${JSON.stringify(model.get("name"))})${now.plan.length ? `.skip([${now.plan.join(", ")}]${more})` : ""}`);
  });

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
    part.select.value = model.get("part");
    steps.select.value = model.get("steps") ?? "";
    code.value = printed.textContent = model.get("code");
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
    const loses = loss == null || baseline_loss == null ? "–" : signed(loss - baseline_loss);
    const behind = found.plan && key(found) !== key(planned(model));
    about.textContent = behind ? `Waiting for the kernel: these numbers are of the plan ${planWords(found)}.` : "";
    about.hidden = !behind;
    const third = model.get("steps") && model.get("plan").length;
    const missing = model.alone ? "this plan was not measured" : model.get("running") ? "not measured yet" : "not measured: press Measure";
    const count = accuracy == null ? missing : `${solved(found)}, ${solved({ accuracy: baseline, n })} as it is; ${n} of ${model.get("n")} problems`;
    const over = accuracy == null ? "" : low == null ? "; no interval of so few" : `; 95 % interval ${percent(low)} to ${percent(high)}`;
    const kept = accuracy == null ? missing : retained == null ? `nothing to keep: ${solved({ accuracy: baseline, n })} as it is` : retained_low == null ? "too few solved problems for an interval" : `95 % interval ${percent(retained_low)} to ${percent(retained_high)}, in pairs`;
    cards.replaceChildren(
      card("FLOPs saved", percent(flops_saved), flops_saved == null ? missing : third ? "counted on decoding the first problems" : "counted on one forward"),
      card("Loss", loses, loss == null ? (third ? "none: it is that of a forward, which has one step" : missing) : `nats a token; ${baseline_loss.toFixed(3)} as it is, ${loss.toFixed(3)} with the plan`),
      card("Accuracy", percent(accuracy), `${count}${over}`, interval(found)),
      card("Accuracy retained", percent(retained), kept));
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
      make("button", { onclick: () => take(model, each), "aria-label": `take plan ${planWords(each)}` }, planWords(each)),
      percent(each.flops_saved), each.loss == null ? "none in a third" : each.loss.toFixed(3), `${percent(each.accuracy)}: ${solved(each)}`, `${percent(each.low)} to ${percent(each.high)}`]);
    before.replaceChildren(rows.length ? table(["skipped", "FLOPs saved", "loss", "accuracy", "95 % interval"], rows) : make("p", { class: "quiet" }, "none yet"));
  };
  const stops = [
    hidePicture(model),
    follow(model, ["plan", "part", "steps", "redundancy", "code"], drawStrip),
    follow(model, ["result", "n", "running", "plan", "part", "steps"], drawCards),
    follow(model, ["result", "history", "plan", "part", "steps"], picture.draw),
    follow(model, ["running", "progress", "status", "live"], drawWork),
    follow(model, ["history"], drawHistory),
  ];
  return () => { stops.forEach((stop) => stop()); picture.stop(); };
}

export default { render };
