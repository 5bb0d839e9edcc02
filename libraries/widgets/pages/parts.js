// Parts that both viewers share. File names and labels are inserted as text, never as HTML.

const NUMBER = new Intl.NumberFormat("en");
const KEPT_THUMBNAILS = 3000;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.startsWith("aria")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

function picture(bytes, type = "image/jpeg") {
  return URL.createObjectURL(new Blob([bytes], { type }));
}

// A percentage with one decimal, as in the report.
function percent(fraction) {
  return `${(100 * fraction).toFixed(1)}%`;
}

// The common part of a viewer: a grid with pages, a large view, and keys to move between images.
function makeViewer({ model, el, caption, describe, keys, help }) {
  const act = (name, details = {}) => model.send({ do: name, ...details });
  const thumbnails = new Map(); // number of an image → URL, or null if it has none
  let items = [], boxes = [], cursor = 0, anchor = 0, selected = new Set(), atEnd = false, timer = 0, shown = "";

  const grid = element("div", {
    className: "grid", tabIndex: 0, role: "listbox", "aria-multiselectable": "true", "aria-label": "images",
  });
  const place = element("span", { className: "place" });
  const before = element("button", { type: "button", title: "Page Up", onclick: () => turn(-1) }, "‹");
  const after = element("button", { type: "button", title: "Page Down", onclick: () => turn(1) }, "›");
  const problem = element("p", { className: "problem", role: "alert" });
  const large = element("div", { className: "large" });
  const beside = element("div", { className: "beside" }, large);
  const top = element("div", { className: "top" });
  const pager = element("span", { className: "pager" }, before, place, after);
  const root = element("div", { className: "viewer", "data-lm-suppress-shortcuts": "true" },
    top, problem,
    element("div", { className: "main" }, element("div", { className: "pageful" }, grid), beside),
    element("p", { className: "help" }, help));
  root.addEventListener("keydown", onKey);
  el.append(root);

  function turn(by, end = false) {
    const page = model.get("state").page + by;
    if (page < 0 || page >= model.get("state").pages) return;
    atEnd = end;
    act("page", { page });
  }

  function showPage(state) {
    const same = items.length === state.items.length && items.every((item, i) => item.id === state.items[i].id);
    items = state.items;
    if (!same) {
      boxes = items.map((item, i) => {
        const image = element("img", { alt: "", draggable: false });
        const box = element("div", { className: "box", role: "option", id: `${id}-${i}` },
          element("div", { className: "frame" }, image), element("div", { className: "caption" }));
        box.addEventListener("mousedown", event => { event.preventDefault(); click(i, event); });
        box.addEventListener("dblclick", () => root.classList.toggle("wide"));
        return box;
      });
      grid.replaceChildren(...boxes);
      selected.clear();
      // Where the same page has other images, such as after one was put off, the frame stays where it is.
      const stays = shown === JSON.stringify([state.page, state.filter]);
      const last = Math.max(0, items.length - 1);
      cursor = anchor = atEnd ? last : stays ? Math.min(cursor, last) : 0;
      atEnd = false;
      const missing = items.map(item => item.id).filter(image => !thumbnails.has(image));
      items.forEach((item, i) => drawThumbnail(i));
      if (missing.length) act("thumbnails", { images: missing });
    }
    items.forEach((item, i) => {
      const [classes, text] = caption(item);
      boxes[i].className = `box ${classes}`;
      boxes[i].querySelector(".caption").replaceChildren(...text);
      boxes[i].title = item.name;
    });
    place.textContent = state.matching
      ? `${NUMBER.format(state.first + 1)}–${NUMBER.format(state.first + items.length)} of ${NUMBER.format(state.matching)}`
      : "no images";
    shown = JSON.stringify([state.page, state.filter]);
    before.disabled = state.page === 0;
    after.disabled = state.page >= state.pages - 1;
    problem.textContent = state.problem;
    mark();
    look(!same);
  }

  function drawThumbnail(i) {
    const url = thumbnails.get(items[i].id), image = boxes[i].querySelector("img");
    if (url) image.src = url;
    boxes[i].querySelector(".frame").classList.toggle("unreadable", url === null);
  }

  function mark() {
    boxes.forEach((box, i) => {
      box.classList.toggle("cursor", i === cursor);
      box.setAttribute("aria-selected", selected.has(items[i].id));
      box.setAttribute("aria-label", describe(items[i]));
    });
    if (boxes[cursor]) {
      grid.setAttribute("aria-activedescendant", boxes[cursor].id);
      const box = boxes[cursor].getBoundingClientRect(), frame = grid.getBoundingClientRect();
      if (box.top < frame.top) grid.scrollTop -= frame.top - box.top + 4;
      if (box.bottom > frame.bottom) grid.scrollTop += box.bottom - frame.bottom + 4;
    }
  }

  // The large view follows the cursor after a short pause.
  function look(isNew = true) {
    clearTimeout(timer);
    if (!items.length) large.replaceChildren();
    else timer = setTimeout(() => act("look", { image: items[cursor].id }), isNew ? 80 : 0);
  }

  function move(to, extend) {
    if (to < 0) return turn(-1, true);
    if (to >= items.length) return turn(1);
    cursor = to;
    if (extend) {
      const [low, high] = [Math.min(anchor, cursor), Math.max(anchor, cursor)];
      selected = new Set(items.slice(low, high + 1).map(item => item.id));
    } else {
      anchor = cursor;
    }
    mark();
    look();
  }

  function toggle(i) {
    const image = items[i].id;
    if (!selected.delete(image)) selected.add(image);
    mark();
  }

  function click(i, event) {
    grid.focus({ preventScroll: true });
    if (event.shiftKey) return move(i, true);
    if (event.ctrlKey || event.metaKey) toggle(i);
    else selected.clear();
    move(i, false);
  }

  function columns() {
    const top = boxes[0]?.offsetTop;
    const first = boxes.findIndex(box => box.offsetTop !== top);
    return first < 0 ? boxes.length : first;
  }

  function onKey(event) {
    event.stopPropagation();
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") grid.focus();
      return;
    }
    if (event.target.closest("button") && ["Enter", " "].includes(event.key)) return;
    const control = event.ctrlKey || event.metaKey, shift = event.shiftKey;
    const moves = {
      ArrowLeft: cursor - 1, ArrowRight: cursor + 1, ArrowUp: Math.max(cursor - columns(), -1),
      ArrowDown: cursor + columns(), Home: 0, End: items.length - 1,
    };
    if (event.key in moves && !control && !event.altKey) {
      // Down in the last row but one goes to the last image, not to the next page.
      const rows = Math.floor(cursor / columns()) < Math.floor((items.length - 1) / columns());
      const to = event.key === "ArrowDown" && rows ? Math.min(moves.ArrowDown, items.length - 1) : moves[event.key];
      move(to, shift);
    } else if (event.key === "PageDown") turn(1);
    else if (event.key === "PageUp") turn(-1);
    else if (event.key === " " && items.length) toggle(cursor);
    else if (control && event.key.toLowerCase() === "a") {
      selected = new Set(items.map(item => item.id));
      mark();
    } else if (event.key === "Escape") {
      selected.clear();
      root.classList.remove("wide");
      mark();
    } else if (!keys(event, control)) {
      if (event.key !== "Enter") return;
      root.classList.toggle("wide");
    }
    event.preventDefault();
  }

  // The images that an action applies to: the selected ones, else the one under the cursor.
  function targets() {
    return selected.size ? [...selected] : items.length ? [items[cursor].id] : [];
  }

  // After an action: clear the selection, or move from a single image to the next.
  function advance() {
    if (!selected.size) return move(cursor + 1, false);
    selected.clear();
    mark();
    look();
  }

  const id = `viewer-${Math.random().toString(36).slice(2)}`;
  const handlers = new Map(); // of further kinds of messages
  function onMessage(message, buffers) {
    if ("thumbnail" in message) {
      if (thumbnails.size >= KEPT_THUMBNAILS) {
        const [oldest, url] = thumbnails.entries().next().value;
        thumbnails.delete(oldest);
        if (url && !items.some(item => item.id === oldest)) URL.revokeObjectURL(url);
      }
      thumbnails.set(message.thumbnail, message.problem ? null : picture(buffers[0]));
      const i = items.findIndex(item => item.id === message.thumbnail);
      if (i >= 0) drawThumbnail(i);
    } else if ("look" in message) {
      if (items[cursor]?.id === message.look) handlers.get("look")(message, buffers);
    } else {
      for (const [kind, show] of handlers) if (kind in message) show(message, buffers);
    }
  }

  function draw() {
    showPage(model.get("state"));
  }
  model.on("msg:custom", onMessage);
  return {
    root, top, pager, beside, large, act, targets, advance, grid, draw,
    onMessage: (kind, show) => handlers.set(kind, show),
    close() {
      clearTimeout(timer);
      model.off("msg:custom", onMessage);
      thumbnails.forEach(url => url && URL.revokeObjectURL(url));
    },
  };
}

// Show an image large with its facts below, or the reason why it cannot be shown.
function showLarge(viewer, message, buffers, ...more) {
  for (const old of viewer.large.querySelectorAll("img")) if (old.src) setTimeout(() => URL.revokeObjectURL(old.src), 1000);
  const sheet = element("div", { className: "sheet" });
  if (message.problem) sheet.append(element("p", { className: "problem" }, `This image ${message.problem}.`));
  else sheet.append(element("img", { src: picture(buffers[0]), alt: message.facts.file }));
  const facts = element("dl");
  for (const [name, value] of Object.entries(message.facts)) {
    facts.append(element("dt", {}, name), element("dd", {}, value));
  }
  viewer.large.replaceChildren(sheet, ...more, facts);
  return sheet;
}

function select(label, onchange) {
  const made = element("select", { "aria-label": label, title: label });
  made.addEventListener("change", () => onchange(made.value));
  return made;
}

// Fill a select with [value, text] pairs, and choose one.
function fill(list, pairs, chosen) {
  list.replaceChildren(...pairs.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
}
