// The parts of a browser that outbox.js and hotkeys.js use.

/** Install a fake browser as globals; returns handles to what the code under test did. */
export function browser({ storage = new Map(), cookie = "csrftoken=abc" } = {}) {
  const listeners = {};
  const requests = [];
  const timers = [];
  const page = { dialog: null };
  const listen = (type, listener) => (listeners[type] ??= []).push(listener);
  globalThis.addEventListener = listen;
  globalThis.document = {
    cookie,
    addEventListener: listen,
    querySelector: (selector) => (selector === "dialog[open]" ? page.dialog : null),
  };
  globalThis.localStorage = {
    getItem: (key) => storage.get(key) ?? null,
    setItem: (key, value) => storage.set(key, value),
    removeItem: (key) => storage.delete(key),
  };
  globalThis.setInterval = (callback, milliseconds) => timers.push({ callback, milliseconds });
  const answers = [];
  globalThis.fetch = async (url, options) => {
    requests.push({ url, ...options });
    const answer = answers.shift();
    if (answer === undefined) throw new TypeError("network error");
    return { ok: true, status: 200, type: "basic", headers: new Headers(), text: async () => "", ...answer };
  };
  return {
    answers,
    page,
    requests,
    storage,
    timers,
    fire: (type, event = {}) => listeners[type].map((listener) => listener(event)),
  };
}
