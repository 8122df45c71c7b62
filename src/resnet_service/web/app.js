// Wires up the page: images arrive by drop, paste, file dialog, camera or sample, and each gets a card.

import { facts, Failure, fetchFacts } from "./api.js";
import { watchForKeys } from "./key.js";
import { renderModel } from "./model.js";
import { announce, Card, explanation } from "./results.js";
import { renderSamples } from "./samples.js";
import { onLanguage, switchLanguage, translatePage, words } from "./translations.js";

const AT_ONCE = 2; // requests in flight; more would only wait in the service's queue
const MOST = 24; // cards on the page; the oldest are removed

const form = document.getElementById("form");
const results = document.getElementById("results");
const notice = document.getElementById("notice");
const cards = [];
const queue = [];
let working = 0;

function add(file, name, credit) {
  const removed = (card) => {
    cards.splice(cards.indexOf(card), 1);
    const next = card.node.nextElementSibling ?? card.node.previousElementSibling;
    card.discard();
    (next?.querySelector("h2") ?? document.getElementById("file")).focus();
  };
  const card = new Card(file, { name: name ?? (() => file.name), credit, removed });
  cards.unshift(card);
  queue.push(card);
  while (cards.length > MOST) {
    cards.pop().discard();
  }
  return card;
}

/** Add a card for each file, in order, above the earlier cards. */
function take(files, name, credit) {
  notice.textContent = files.length > MOST ? words("too.many", { count: MOST }) : "";
  const taken = [...files].slice(0, MOST).map((file) => add(file, name, credit));
  results.prepend(...taken.map((card) => card.node));
  taken[0]?.node.scrollIntoView({ block: "nearest" });
  work();
}

async function work() {
  if (queue.length === 0 || working >= AT_ONCE) return;
  working++;
  const card = queue.shift();
  work();
  try {
    if (facts === null) await showFacts();
    await card.classify();
  } finally {
    working--;
    work();
  }
}

let unavailable = ""; // what the notice says while the service does not answer

async function showFacts() {
  try {
    await fetchFacts();
    // Other notices stay: one about a drop may be there before the first answer.
    if (notice.textContent === unavailable) notice.textContent = "";
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.code === "unauthorized") document.dispatchEvent(new Event("unauthorized"));
    // Each card shows the error itself.
    else if (cards.length === 0) notice.textContent = unavailable = explanation(error);
  }
  renderModel();
  renderSamples((file, name, credit) => take([file], name, credit));
}

/** Retry the cards that failed with one of these codes. */
function again(...codes) {
  const failed = cards.filter((card) => codes.includes(card.failure?.code));
  queue.push(...failed.reverse());
  failed.forEach(work);
  if (facts === null) showFacts();
}

for (const id of ["file", "camera"]) {
  const input = document.getElementById(id);
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
}

// Accept a drop anywhere on the page; by default, the browser would open the file.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) form.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  if (event.dataTransfer.files.length > 0) take(event.dataTransfer.files);
  else notice.textContent = words("none.dropped");
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length > 0) {
    event.preventDefault();
    // Browsers name every pasted image image.png.
    take(event.clipboardData.files, () => words("photo.pasted"));
  }
});
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("online", () => again("offline"));
document.addEventListener("other-model", showFacts);
document.addEventListener("unable", () => cards.forEach((card) => card.render()));

document.getElementById("language").addEventListener("click", switchLanguage);
onLanguage(() => {
  announce("");
  notice.textContent = "";
  renderModel();
  renderSamples((file, name, credit) => take([file], name, credit));
  for (const card of cards) {
    card.render();
    // If the names cannot be fetched, the old ones stay.
    card.rename().catch((error) => {
      if (!(error instanceof Failure)) throw error;
    });
  }
});
watchForKeys(() => again("unauthorized"));
translatePage();
showFacts();
