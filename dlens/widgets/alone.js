// A widget without a kernel: its state, and what a kernel answered to each choice when the page was written.

async function alone(host, held, render) {
  const decode = (value) => {
    if (Array.isArray(value)) return value.map(decode);
    if (value && typeof value === "object") {
      if ("$bytes" in value) return new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer);
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, decode(each)]));
    }
    return value;
  };
  const bytes = Uint8Array.from(atob(held), (c) => c.charCodeAt(0));
  const unzipped = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { state: given, tables } = await new Response(unzipped).json();
  const state = decode(given), listeners = {}, changed = new Set();
  const tell = (name) => (listeners[`change:${name}`] ?? []).forEach((call) => call());
  const model = {
    alone: true,
    get: (name) => state[name],
    set(name, value) { state[name] = value; changed.add(name); tell(name); },
    on(name, call) { (listeners[name] ??= []).push(call); },
    off(name, call) { listeners[name] = (listeners[name] ?? []).filter((other) => other !== call); },
    send() {},
    async save_changes() {
      for (const { keys, rows } of tables) {
        if (!keys.some((key) => changed.has(key))) continue;
        const answer = rows[JSON.stringify(keys.map((key) => state[key]))] ?? {};
        for (const [name, value] of Object.entries(answer)) { state[name] = decode(value); tell(name); }
      }
      changed.clear();
    },
  };
  host.replaceChildren();
  render({ model, el: host });
}
