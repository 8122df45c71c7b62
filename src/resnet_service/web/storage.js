// Values kept in the browser. Where storage is forbidden, they last until the page is closed.

const kept = new Map();

function attempt(action) {
  try {
    return action();
  } catch {
    return null; // storage is forbidden
  }
}

/** Keep `value` permanently (`always`), or for this tab only. */
export function keep(key, value, { always }) {
  kept.set(key, value);
  attempt(() => (always ? localStorage : sessionStorage).setItem(key, value));
}

/** The value kept last, or null. */
export function recall(key) {
  return kept.get(key) ?? attempt(() => sessionStorage.getItem(key) ?? localStorage.getItem(key));
}
