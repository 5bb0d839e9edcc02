// The viewer of a data set's images: filter, view, change labels and marks.

const MARK_KEYS = { a: "ambiguous", x: "excluded" };

function render({ model, el }) {
  const state = () => model.get("state");
  const inQueue = () => Boolean(state().filter.queue);
  const doubt = item => item.suggested && item.suggested !== item.label ? ` → ${item.suggested}?` : ` ${item.reason}`;
  const labelOf = item => item.label || (item.settled ? "no label" : "");
  const viewer = makeViewer({
    model, el,
    help: "Arrows move, Shift extends the selection, Space selects, Ctrl+A all · digits, or l and a name, label · a ambiguous, "
      + "x excluded, k right as it is · u undo, r redo · Page Up, Page Down · Enter large, but in the list to look at: "
      + "take the label after the arrow · s later · / search",
    caption: item => [
      [item.mark ? `marked ${item.mark}` : "", item.settled && inQueue() ? "settled" : ""].filter(Boolean).join(" "),
      [item.settled && inQueue() ? "✓ " : "", labelOf(item),
        ...(item.was ? [element("span", { className: "was" }, ` was ${item.was}`)] : []),
        ...(item.mark ? [" · ", element("span", { className: "mark" }, item.mark)] : []),
        ...(inQueue() && !item.settled ? [element("span", { className: "doubt" }, doubt(item))] : [])],
    ],
    describe: item => [item.name, item.label, item.mark].filter(Boolean).join(", "),
    keys(event, control) {
      const key = event.key.toLowerCase();
      if (control) {
        if (key === "z") viewer.act(event.shiftKey ? "redo" : "undo");
        else if (key === "y") viewer.act("redo");
        else return false;
      } else if (/^[0-9]$/.test(key)) {
        const label = state().labels[(Number(key) + 9) % 10];
        if (label) relabel(label.name);
      } else if (key in MARK_KEYS) mark(MARK_KEYS[key]);
      else if (key === "k") decide("keep");
      else if (inQueue() && key === "enter") decide("accept");
      else if (inQueue() && key === "s") decide("later");
      else if (key === "u") viewer.act("undo");
      else if (key === "r") viewer.act("redo");
      else if (key === "l") byName.focus();
      else if (key === "/") search.focus();
      else return false;
      return true;
    },
  });

  function relabel(label) {
    const images = viewer.targets();
    if (!images.length) return;
    viewer.act("relabel", { images, label });
    viewer.advance();
  }

  function mark(name) {
    const images = viewer.targets();
    if (!images.length) return;
    viewer.act("mark", { images, mark: name });
    viewer.advance();
  }

  // What is put off makes room for the next, so the frame stays where it is.
  function decide(what) {
    const images = viewer.targets();
    if (!images.length) return;
    viewer.act(what, { images });
    if (what !== "later") viewer.advance();
  }

  // Filters
  const labels = select("which images", () => filter());
  const splits = select("training or test", () => filter());
  const search = element("input", { type: "search", placeholder: "file name", "aria-label": "file name" });
  let typing = 0;
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 250); });
  search.addEventListener("keydown", event => { if (event.key === "Enter") viewer.grid.focus(); });

  function filter() {
    const [kind, value] = labels.value.split(/:(.*)/s);
    viewer.act("filter", {
      label: kind === "label" ? value : null, mark: kind === "mark" ? value : null, finding: kind === "finding" ? value : null,
      queue: kind === "queue" ? value : null,
      split: splits.value || null, name: search.value,
    });
  }

  // Actions
  const buttons = element("span", { className: "buttons" });
  const names = element("datalist", { id: `names-${Math.random().toString(36).slice(2)}` });
  const byName = element("input", { placeholder: "label by name", "aria-label": "label by name" });
  byName.setAttribute("list", names.id);
  byName.addEventListener("keydown", event => {
    if (event.key !== "Enter") return;
    relabel(byName.value);
    byName.value = "";
    viewer.grid.focus();
  });
  const undo = element("button", { type: "button", title: "u, Ctrl+Z", onclick: () => viewer.act("undo") }, "Undo");
  const redo = element("button", { type: "button", title: "r, Ctrl+Y", onclick: () => viewer.act("redo") }, "Redo");
  const renew = element("button", {
    type: "button", title: "train on the labels of now, and list what is worth a look then; also done after a hundred answers",
    onclick: () => { viewer.act("renew"); viewer.grid.focus(); },
  }, "Renew the list");
  const said = element("span", { className: "said", role: "status" });
  const notes = element("div", { className: "notes" });
  viewer.top.append(
    element("div", { className: "bar" }, labels, splits, search, viewer.pager),
    element("div", { className: "bar" }, buttons, byName, names, undo, redo, renew, said),
    notes);
  let buttonsFor = "", waiting = 0;

  function draw() {
    const now = state(), { filter: chosen } = now;
    fill(labels, [
      ...Object.entries(now.queue).map(([reason, images]) =>
        [`queue:${reason}`, `${reason === "all" ? "to look at" : `to look at: ${reason}`} (${NUMBER.format(images)})`]),
      ["", `all ${NUMBER.format(now.images)} images`],
      ...now.labels.map(({ name, images }) => [`label:${name}`, `${name} (${NUMBER.format(images)})`]),
      ...Object.entries(now.marks).map(([name, images]) => [`mark:${name}`, `marked ${name} (${NUMBER.format(images)})`]),
      ...Object.entries(now.findings).map(([name, images]) => [`finding:${name}`, `${name}? (${NUMBER.format(images)})`]),
    ], ["queue", "label", "mark", "finding"].filter(kind => chosen[kind]).map(kind => `${kind}:${chosen[kind]}`)[0] ?? "");
    fill(splits, [["", "training and test"], ["train", "training"], ["test", "test"], ["new", "new, not yet prepared"],
      ...(now.pool ? [["pool", `pool, without a label (${NUMBER.format(now.pool)})`]] : [])],
      chosen.split ?? "");
    if (document.activeElement !== search) search.value = chosen.name;
    const all = JSON.stringify([inQueue(), now.labels.map(label => label.name)]);
    if (buttonsFor !== all) {
      buttonsFor = all;
      const press = (key, text, action) => element("button", { type: "button", onclick: () => { action(); viewer.grid.focus(); } },
        element("kbd", {}, key), ` ${text}`);
      buttons.replaceChildren(
        ...(inQueue() ? [press("Enter", "as suggested", () => decide("accept"))] : []),
        ...now.labels.slice(0, 10).map(({ name }, i) => press(String((i + 1) % 10), name, () => relabel(name))),
        ...Object.entries(MARK_KEYS).map(([key, name]) => press(key, name, () => mark(name))),
        press("k", "right as it is", () => decide("keep")),
        ...(inQueue() ? [press("s", "later", () => decide("later"))] : []));
      names.replaceChildren(...now.labels.map(({ name }) => element("option", { value: name })));
      byName.hidden = now.labels.length <= 10;
    }
    undo.disabled = !now.canUndo;
    redo.disabled = !now.canRedo;
    renew.hidden = !now.canRenew;
    renew.disabled = now.isRenewing;
    renew.textContent = now.isRenewing ? "Renewing…" : "Renew the list";
    clearTimeout(waiting);
    if (now.isRenewing) waiting = setTimeout(() => viewer.act("refresh"), 700);
    said.textContent = now.said;
    notes.replaceChildren(
      ...(now.next ? [element("p", { className: "next" }, now.next)] : []),
      ...(now.told.length ? [element("p", { className: "next" }, now.told.join(" "))] : []),
      ...(now.isStale ? [element("p", {}, "To apply your changes, run scripts 1 to 5 again, beginning with scripts/1_prepareData.py.")] : []),
      ...(now.isPrepared ? [] : [element("p", {}, "Script 1 has not run yet: run scripts/1_prepareData.py to split the images into training and test.")]),
      ...(now.pending ? [element("p", {}, `${NUMBER.format(now.pending)} labels that were changed earlier are not in the folders. `,
        element("button", { type: "button", onclick: () => viewer.act("replay") }, "Change them again"))] : []));
    viewer.draw();
  }

  viewer.onMessage("look", (message, buffers) => showLarge(viewer, message, buffers));
  model.on("change:state", draw);
  draw();
  return () => { clearTimeout(waiting); model.off("change:state", draw); viewer.close(); };
}

export default { render };
