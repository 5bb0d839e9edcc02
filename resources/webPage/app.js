// The service's page: pictures in, one card each. Text from files and from the service only ever becomes textContent.

import { listenToCamera } from "./camera.js";
import { Card } from "./card.js";
import { meet } from "./classifier.js";
import { $, plural, say } from "./page.js";

const cards = new Set();

function addFiles(files) {
  const added = [...files].map((file) => new Card(file, { changed: summarise, removed: removeCard }));
  if (!added.length) return;
  $("#cards").prepend(...added.map(({ element }) => element)); // the newest on top, in their own order
  for (const card of added) {
    cards.add(card);
    card.start();
  }
  summarise();
  $("#summary").scrollIntoView({ block: "nearest" });
}

function removeCard(card) {
  const neighbour = card.element.nextElementSibling ?? card.element.previousElementSibling;
  card.close();
  cards.delete(card);
  summarise();
  (neighbour ? $(".remove", neighbour) : $("#choose")).focus();
}

/** '3 pictures: 2 defective, 1 functional'. */
function summarise() {
  const counts = new Map();
  let failed = 0;
  let waiting = 0;
  for (const { result, problem } of cards) {
    const said = result?.unknown ? "unknown" : result?.label;
    if (result) counts.set(said, (counts.get(said) ?? 0) + 1);
    else if (problem) failed += 1;
    else waiting += 1;
  }
  const parts = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count} ${label}`);
  if (parts.length > 6) parts.splice(5, Infinity, `${parts.length - 5} other classes`);
  if (failed) parts.push(`${failed} not classified`);
  if (waiting) parts.push(`${waiting} to come`);
  const head = plural(cards.size, "picture");
  $("#summary").textContent = cards.size === 1 ? head : `${head}: ${parts.join(", ")}`;
  $("#results").hidden = cards.size === 0;
  $("#drop").classList.toggle("smaller", cards.size > 0);
}

// ---- Ways in: files, drop, paste, camera

function choosing(button, input) {
  button.onclick = () => input.click();
  input.onchange = () => {
    addFiles(input.files);
    input.value = ""; // so that the same file can be chosen again
  };
}

function dropped(event) {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const items = [...event.dataTransfer.items].filter(({ kind }) => kind === "file");
  const folders = items.filter((item) => item.webkitGetAsEntry()?.isDirectory).length;
  say($("#notice"), folders ? "Folders cannot be dropped here: open them and drop the pictures." : "");
  addFiles(items.filter((item) => !item.webkitGetAsEntry()?.isDirectory).map((item) => item.getAsFile()));
}

function listen() {
  choosing($("#choose"), $("#files"));
  $("#clear").onclick = () => {
    cards.forEach((card) => card.close());
    cards.clear();
    summarise();
    $("#choose").focus();
  };
  if (/Mac|iP/.test(navigator.platform)) $("#paste-keys").textContent = "⌘V";
  addEventListener("paste", ({ clipboardData }) => addFiles(clipboardData.files));
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  addEventListener("drop", dropped);
}

listen();
listenToCamera(addFiles, () => choosing($("#camera"), $("#capture")));
meet();
