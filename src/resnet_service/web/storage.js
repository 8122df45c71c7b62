// What the browser keeps for the page. Where it may keep nothing, the page works all the same, until it is closed.

const kept = new Map();

function attempt(action) {
  try {
    return action();
  } catch {
    return null; // the visitor forbids it
  }
}

/** Keep `value`: for always, or for this tab only. */
export function keep(key, value, { always }) {
  kept.set(key, value);
  attempt(() => (always ? localStorage : sessionStorage).setItem(key, value));
}

/** What was kept last, or null. */
export function recall(key) {
  return kept.get(key) ?? attempt(() => sessionStorage.getItem(key) ?? localStorage.getItem(key));
}
