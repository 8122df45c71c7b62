// The page's requests to the service. Everything that can go wrong becomes a Failure.

import { keep, recall } from "./storage.js";
import { language } from "./translations.js";

// Services behind other prefixes of the same host share the storage, and must not get this one's key.
const KEY = `api-key ${location.pathname}`;
const ATTEMPTS = 5;
const LONGEST_WAIT = 60;

/** `code` is the service's error code, or one of ours: offline, gone, unreadable, empty, unexpected. */
export class Failure extends Error {
  constructor(code, values = {}, status = 0) {
    super(code);
    this.code = code;
    this.values = values;
    this.status = status;
  }

  /** Whether the same request may succeed later. */
  get passes() {
    return [0, 401, 408, 429].includes(this.status) ? this.code !== "body_too_large" : this.status >= 500;
  }
}

export const useKey = (key) => keep(KEY, key, { always: false });
export const hasKey = () => recall(KEY) !== null;

/** The answer of /metadata; null until it was fetched. */
export let facts = null;

export async function fetchFacts() {
  facts = await request("metadata");
  return facts;
}

const names = new Map();

/** The names of all classes of the current model in the page's language; fetched once. */
export async function classNames() {
  const key = `${language()} ${facts?.model.version}`;
  if (!names.has(key)) {
    const { classes } = await request(`labels?lang=${language()}`);
    names.set(key, classes.map(({ name }) => name));
  }
  return names.get(key);
}

/** Classify a file; while the service is busy, `waits` is called each second with the seconds left. */
export function predict(file, topK, signal, waits) {
  const query = new URLSearchParams({ lang: language() });
  if (topK) query.set("top_k", topK);
  return post(`predict?${query}`, file, signal, waits);
}

/** The class activation map of one class for a file. */
export function explain(file, classId, signal, waits) {
  const query = new URLSearchParams({ format: "json", class_id: classId, lang: language() });
  return post(`explain?${query}`, file, signal, waits);
}

async function post(path, file, signal, waits) {
  if (file.size === 0) throw new Failure("empty", {}, 400);
  const limit = facts?.limits?.max_body_bytes;
  if (limit !== undefined && file.size > limit) throw new Failure("body_too_large", { size: file.size }, 413);
  // Send plain bytes: the service ignores the media type that the browser guesses.
  const options = { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file, signal };
  for (let attempt = 1; ; attempt++) {
    try {
      return await request(path, options);
    } catch (failure) {
      if (!(failure instanceof Failure) || failure.status !== 429 || attempt === ATTEMPTS) throw failure;
      for (let left = failure.values.seconds; left > 0; left--) {
        waits({ seconds: left, attempt: attempt + 1, attempts: ATTEMPTS });
        await second(signal);
      }
      waits(null);
    }
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (hasKey()) headers.Authorization = `Bearer ${recall(KEY)}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    options.signal?.throwIfAborted();
    if (!navigator.onLine) throw new Failure("offline");
    // A file that was moved fails like a service that is gone; only reading the file tells them apart.
    if (options.body && !(await readable(options.body))) throw new Failure("unreadable", {}, 400);
    throw new Failure("gone");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const problem = answer ?? {};
  const seconds = Math.min(Math.max(parseInt(response.headers.get("Retry-After"), 10) || 1, 1), LONGEST_WAIT);
  const values = { detail: problem.detail ?? `HTTP ${response.status}`, seconds, attempts: ATTEMPTS, size: options.body?.size };
  throw new Failure(problem.code ?? "unexpected", values, response.status);
}

const readable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

function second(signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, 1000);
    const leave = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    function done() {
      signal.removeEventListener("abort", leave);
      resolve();
    }
    signal.addEventListener("abort", leave, { once: true });
  });
}
