// The viewer of test results: confusion matrix, scores, evidence, and a threshold.

const MOST_CELLS = 20; // classes; of more, only the most frequent confusions are listed
const HINT = "press e or click a class to see the evidence for it";
const ORDERS = [
  ["loss", "worst first (loss)"], ["margin", "most uncertain first (margin)"], ["most confident", "most confident first"],
  ["least confident", "least confident first"], ["name", "by class and name"],
];

const TRUST = { unknown: "unknown", ambiguous: "several likely labels", ask: "to ask a person" };

function render({ model, el }) {
  const state = () => model.get("state");
  let looked = null, chosen = null, followed = null, evidence = false, url = ""; // followed: the class that the user picked
  const viewer = makeViewer({
    model, el,
    help: "Arrows move · e evidence · digits: evidence for a class · l correct the label, u undo · Page Up, Page Down · Enter large · / search",
    caption: item => [
      item.isRight ? "right" : "wrong",
      [element("span", { className: "score" }, percent(item.probability)), item.predicted,
        ...(item.isRight && !item.now ? [] : [element("br"), item.now ? `now ${item.now}` : `is ${item.label}`])],
    ],
    describe: item => `${item.name}: ${item.label} predicted as ${item.predicted}, ${percent(item.probability)}`,
    keys(event, control) {
      if (control) return false;
      if (/^[1-9]$/.test(event.key)) {
        const bar = looked?.bars[Number(event.key) - 1];
        if (bar) explain(followed = bar.label);
      } else if (event.key === "e") {
        followed = null;
        explain(evidence ? null : predicted());
      } else if (event.key === "u") viewer.act("undo");
      else if (event.key === "l") viewer.large.querySelector(".relabel")?.focus();
      else if (event.key === "/") search.focus();
      else return false;
      return true;
    },
  });

  // Filters
  const sides = select("right or wrong", () => filter({ at: null }));
  const orders = select("order", () => filter());
  fill(orders, ORDERS, "loss");
  const search = element("input", { type: "search", placeholder: "file name", "aria-label": "file name" });
  let typing = 0;
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 250); });
  search.addEventListener("keydown", event => { if (event.key === "Enter") viewer.grid.focus(); });
  const which = element("span", { className: "which", role: "status" });
  const undo = element("button", { type: "button", title: "u", onclick: () => viewer.act("undo") }, "Undo");
  const said = element("span", { className: "said", role: "status" });
  const title = element("div", { className: "title" });
  const notes = element("div", { className: "notes" });
  const matrix = element("div", { className: "matrix" });
  const threshold = makeThreshold(viewer, kind => filter({
    truth: null, predicted: null, right: null, trust: null, at: { kind, label: state().threshold.label, threshold: threshold.value() },
  }));
  viewer.top.append(title, notes,
    element("div", { className: "panels" }, matrix, threshold.root),
    element("div", { className: "bar" }, sides, orders, search, undo, which, said, viewer.pager));

  function filter(changes = {}) {
    const { truth, predicted, at } = state().filter;
    const trust = sides.value in TRUST ? sides.value : null;
    const right = sides.value === "" || trust ? null : sides.value === "right";
    viewer.act("filter", { truth, predicted, at, right, trust, name: search.value, order: orders.value, ...changes });
  }

  function chooseCell(truth, predicted) {
    const now = state().filter;
    const again = now.truth === truth && now.predicted === predicted;
    const nothing = { truth: null, predicted: null, right: null, trust: null, at: null };
    filter(again ? nothing : { ...nothing, truth, predicted });
  }

  function drawMatrix({ names, matrix: counts, filter: now }) {
    const cell = (i, j) => {
      const total = counts[i].reduce((sum, count) => sum + count, 0);
      const pressed = now.truth === i && now.predicted === j;
      const button = element("button", {
        type: "button", "aria-pressed": pressed, onclick: () => chooseCell(i, j),
        title: `${NUMBER.format(counts[i][j])} of ${NUMBER.format(total)} images of ${names[i]} predicted as ${names[j]}`,
      }, NUMBER.format(counts[i][j]));
      button.className = `cell ${i === j ? "diagonal" : "off"}`;
      button.style.setProperty("--part", total ? counts[i][j] / total : 0);
      return button;
    };
    const head = (text, i, of) => element("button", {
      type: "button", className: "head", title: `all ${of} ${text}`, "aria-pressed": of === "of" ? now.truth === i && now.predicted === null : now.predicted === i && now.truth === null,
      onclick: () => of === "of" ? chooseCell(i, null) : chooseCell(null, i),
    }, text);
    if (names.length > MOST_CELLS) {
      const pairs = counts.flatMap((row, i) => row.map((count, j) => [count, i, j])).filter(([count, i, j]) => i !== j && count);
      pairs.sort((a, b) => b[0] - a[0]);
      matrix.replaceChildren(element("p", { className: "legend" }, "most frequent confusions"),
        element("div", { className: "pairs" }, ...pairs.slice(0, MOST_CELLS).map(([count, i, j]) =>
          element("button", { type: "button", "aria-pressed": now.truth === i && now.predicted === j, onclick: () => chooseCell(i, j) },
            `${names[i]} predicted as ${names[j]}: ${NUMBER.format(count)}`))));
      return;
    }
    matrix.replaceChildren(element("table", {},
      element("caption", {}, "true class (rows) and predicted class (columns): click to see the images"),
      element("thead", {}, element("tr", {}, element("td"), ...names.map((name, j) => element("th", { scope: "col" }, head(name, j, "predicted as"))))),
      element("tbody", {}, ...names.map((name, i) => element("tr", {}, element("th", { scope: "row" }, head(name, i, "of")),
        ...names.map((_, j) => element("td", {}, cell(i, j))))))));
  }

  // Evidence
  function predicted() {
    return looked?.bars.find(bar => bar.isPredicted)?.label ?? null;
  }

  function explain(label) {
    evidence = label !== null;
    chosen = label;
    viewer.large.querySelector(".evidence")?.remove();
    drawBars();
    const method = viewer.large.querySelector(".method");
    if (method) method.textContent = evidence ? "computing …" : HINT;
    if (evidence) viewer.act("evidence", { image: looked.look, label: state().names.indexOf(label) });
  }

  function drawBars() {
    viewer.large.querySelectorAll(".bars button").forEach((button, i) => {
      button.setAttribute("aria-pressed", evidence && looked.bars[i].label === chosen);
    });
  }

  viewer.onMessage("look", (message, buffers) => {
    looked = message;
    const bars = element("div", { className: "bars" }, ...message.bars.map(bar => element("button", {
      type: "button", title: `evidence for ${bar.label}`,
      className: bar.isPredicted ? (bar.isTrue ? "true" : "false") : "",
      onclick: () => { explain(followed = evidence && chosen === bar.label ? null : bar.label); viewer.grid.focus(); },
    },
      element("span", { className: "name" }, bar.label + (bar.isTrue ? " ✓" : "")),
      element("span", { className: "track" }, element("span", { className: "fill", style: `width:${100 * bar.probability}%` })),
      element("span", { className: "score" }, percent(bar.probability)))));
    if (message.others > 0) bars.append(element("p", { className: "legend" }, `${NUMBER.format(message.others)} further classes`));
    const relabel = select("correct label", () => {
      if (!relabel.value) return;
      viewer.act("relabel", { image: message.look, label: state().names.indexOf(relabel.value) });
      viewer.grid.focus();
    });
    relabel.classList.add("relabel");
    fill(relabel, [["", "choose a label"], ...state().names.map(label => [label, label])], "");
    const alike = element("div", { className: "alike" }, ...message.alike.map(({ name, label }, i) =>
      element("figure", { title: name }, element("img", { src: picture(buffers[i + 1]), alt: name }), element("figcaption", {}, label))));
    showLarge(viewer, message, buffers, element("p", { className: "legend method" }, HINT), bars,
      element("p", { className: "legend" }, "wrong label? Change it to ", relabel),
      ...(message.alike.length ? [element("p", { className: "legend" }, "most similar training images"), alike] : []));
    if (evidence) explain(followed && message.bars.some(bar => bar.label === followed) ? followed : predicted());
    drawBars();
  });

  viewer.onMessage("evidence", (message, buffers) => {
    const sheet = viewer.large.querySelector(".sheet"), method = viewer.large.querySelector(".method");
    if (!sheet || !evidence || message.evidence !== looked?.look || state().names[message.label] !== chosen) return;
    URL.revokeObjectURL(url);
    url = message.problem ? "" : picture(buffers[0], "image/png");
    sheet.querySelector(".evidence")?.remove();
    if (url) sheet.append(element("img", { className: "evidence", src: url, alt: `evidence for ${chosen}` }));
    method.replaceChildren(...(message.problem ? [message.problem] : [
      element("span", { className: "for" }, "for"), ` and `, element("span", { className: "against" }, "against"),
      ` ${chosen} (${message.method})`]));
  });

  function draw() {
    const now = state(), { filter: f, names } = now;
    title.textContent = now.title;
    const note = now.isStale ? "Labels have changed since this evaluation: run scripts 1 to 5 again to apply the changes."
      : now.stale && `These results are out of date: ${now.stale}`;
    notes.replaceChildren(...(note ? [element("p", {}, note)] : []));
    undo.hidden = !now.canUndo;
    said.textContent = now.said;
    fill(sides, [["", "right and wrong"], ["wrong", "wrong"], ["right", "right"], ...now.trust.map(kind => [kind, TRUST[kind]])],
      f.trust ?? (f.right === null ? "" : f.right ? "right" : "wrong"));
    orders.value = f.order;
    if (document.activeElement !== search) search.value = f.name;
    which.textContent = f.at
      ? `${names[f.at.label]} at ${percent(f.at.threshold)}: ${f.at.kind}`
      : [f.truth !== null ? names[f.truth] : "", f.predicted !== null ? `predicted as ${names[f.predicted]}` : ""].filter(Boolean).join(" ");
    drawMatrix(now);
    threshold.draw(now);
    viewer.draw();
  }

  model.on("change:state", draw);
  draw();
  return () => { model.off("change:state", draw); URL.revokeObjectURL(url); viewer.close(); };
}

// The decision 'this class if its probability is at least the threshold': its precision and recall follow the slider.
function makeThreshold(viewer, show) {
  const classes = select("class", () => viewer.act("threshold", { label: Number(classes.value) }));
  const slider = element("input", { type: "range", min: 0, step: 1, "aria-label": "threshold" });
  const numbers = element("p", { className: "numbers", role: "status" });
  const missed = element("button", { type: "button", onclick: () => show("missed") });
  const alarms = element("button", { type: "button", onclick: () => show("false alarm") });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-2 -2 204 84");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "precision and recall against the threshold");
  const root = element("div", { className: "threshold" },
    element("p", { className: "legend" }, "predict ", classes, " from a probability of"), slider, svg, numbers,
    element("div", { className: "bar" }, missed, alarms));
  let data = null, drawn = "";
  slider.addEventListener("input", follow);

  function at(step) {
    const right = data.truePositives[step], positives = right + data.falsePositives[step];
    return {
      missed: data.positives - right, alarms: positives - right,
      precision: positives ? right / positives : null, recall: data.positives ? right / data.positives : null,
    };
  }

  function line(name, key) {
    const steps = data.truePositives.length - 1;
    const points = [];
    for (let step = 0; step <= steps; step += 5) {
      const value = at(step)[key];
      if (value !== null) points.push(`${(200 * step) / steps},${80 * (1 - value)}`);
    }
    const path = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    path.setAttribute("points", points.join(" "));
    path.setAttribute("class", name);
    return path;
  }

  function follow() {
    const now = at(Number(slider.value)), mark = svg.querySelector(".mark");
    const x = (200 * slider.value) / slider.max;
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
    numbers.replaceChildren(element("b", {}, percent(slider.value / slider.max)), ": ",
      element("span", { className: "precision" }, "precision ", now.precision === null ? "–" : percent(now.precision)), ", ",
      element("span", { className: "recall" }, "recall ", now.recall === null ? "–" : percent(now.recall)));
    missed.textContent = `${NUMBER.format(now.missed)} missed`;
    alarms.textContent = `${NUMBER.format(now.alarms)} false alarms`;
  }

  function draw({ threshold, names }) {
    const all = JSON.stringify([threshold.label, names]);
    if (drawn === all) return;
    drawn = all;
    data = threshold;
    fill(classes, names.map((name, i) => [String(i), name]), String(threshold.label));
    const isFirst = slider.max !== String(threshold.truePositives.length - 1);
    slider.max = threshold.truePositives.length - 1;
    if (isFirst) slider.value = slider.max / 2;
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "line");
    mark.setAttribute("class", "mark");
    mark.setAttribute("y1", 0);
    mark.setAttribute("y2", 80);
    svg.replaceChildren(line("precision", "precision"), line("recall", "recall"), mark);
    follow();
  }

  return { root, draw, value: () => slider.value / slider.max };
}

export default { render };
