// What is said of a point under the pointer, series that come and go, files of figures, and details that print.
(() => {
  const said = document.getElementById("said");

  // The dot nearest to the pointer, within reach of a finger; boxes by what lies under it.
  const nearest = (svg, event) => {
    if (event.target.dataset?.words) return event.target;
    let best = null, least = 24;
    for (const dot of svg.querySelectorAll(".series:not(.gone) circle[data-words]")) {
      const { left, top, width, height } = dot.getBoundingClientRect();
      const far = Math.hypot(event.clientX - left - width / 2, event.clientY - top - height / 2);
      if (far < least) [best, least] = [dot, far];
    }
    return best;
  };
  const hide = () => { said.hidden = true; };
  for (const svg of document.querySelectorAll("svg.chart")) {
    svg.addEventListener("pointermove", (event) => {
      const mark = nearest(svg, event);
      if (!mark) return hide();
      said.textContent = mark.dataset.words;
      said.hidden = false;
      const room = document.documentElement.clientWidth - said.offsetWidth - 8;
      said.style.left = `${Math.max(8, Math.min(event.clientX + 12, room))}px`;
      said.style.top = `${Math.max(8, event.clientY - said.offsetHeight - 12)}px`;
    });
    svg.addEventListener("pointerleave", hide);
    for (const key of svg.querySelectorAll(".key")) {
      key.addEventListener("click", () => {
        const gone = key.classList.toggle("gone");
        svg.querySelector(`.series[data-series="${key.dataset.series}"]`).classList.toggle("gone", gone);
      });
    }
  }
  document.addEventListener("scroll", hide, { passive: true });

  // A figure as a file of its own, with the colours that stand in it, which are those of a white page.
  const alone = (svg) => {
    const copy = svg.cloneNode(true), [, , width, height] = svg.getAttribute("viewBox").split(" ");
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.querySelectorAll(".series.gone").forEach((own) => own.remove());
    copy.querySelectorAll(".key.gone").forEach((own) => own.setAttribute("opacity", "0.3"));
    return { text: new XMLSerializer().serializeToString(copy), width: Number(width), height: Number(height) };
  };
  const give = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const painted = async ({ text, width, height }, finer = 3) => {
    const picture = new Image();
    picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = width * finer;
    canvas.height = height * finer;
    const g = canvas.getContext("2d");
    g.fillStyle = "#fff";
    g.fillRect(0, 0, canvas.width, canvas.height);
    g.drawImage(picture, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  };
  for (const button of document.querySelectorAll("button[data-get]")) {
    button.addEventListener("click", async () => {
      const figure = alone(button.closest("section").querySelector("figure .wide svg"));
      const blob = button.dataset.get === "svg" ? new Blob([figure.text], { type: "image/svg+xml" }) : await painted(figure);
      give(blob, `${button.dataset.name}.${button.dataset.get}`);
    });
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy);
      getSelection().selectAllChildren(text);
      try { await navigator.clipboard.writeText(text.textContent); } catch { document.execCommand("copy"); }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  // What is folded is printed, and folded again.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
})();
