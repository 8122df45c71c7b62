// The form for an API key, shown when the service requires one.

import { hasKey, useKey } from "./api.js";
import { announce } from "./results.js";
import { onLanguage, words } from "./translations.js";

const form = document.getElementById("key");
const field = document.getElementById("key-field");
const label = form.querySelector("label");

/** Show the form when a request is unauthorized; call `given` after a key was entered. */
export function watchForKeys(given) {
  onLanguage(render);
  document.addEventListener("unauthorized", () => {
    if (!form.hidden && document.activeElement === field) return;
    form.hidden = false;
    render();
    announce(label.textContent);
    field.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(field.value.trim());
    field.value = "";
    form.hidden = true;
    document.getElementById("file").focus();
    given();
  });
}

function render() {
  label.textContent = words(hasKey() ? "key.wrong" : "key.ask");
}
