// The annotation page: the next item is shown before the server has answered, keys and swipes cast
// votes, and votes that could not be sent are kept and sent later.
import { Ahead } from "./ahead.js";
import { cacheFiles, cachePut } from "./desk_cache.js";
import { hotkeys } from "./hotkeys.js";
import { Outbox } from "./outbox.js";
import { signInForm } from "./signin.js";
import { Tabs } from "./tabs.js";
import { toast } from "./toast.js";

const desk = document.getElementById("desk");
const banner = document.getElementById("outbox");
let inFlight = null;
// requests whose verdicts were kept: htmx reports an error after the end of the request
const keptRequests = new WeakSet();
const RETIRED = "#stage > [data-verdicts]:not([id])";
const REFUSED = `refused-verdicts:${desk.dataset.person}`;
// in place of an item, once none that was loaded ahead is left
const COMING = {
  offline: "No more answers are loaded. The next one comes when the connection is back; your verdicts are kept.",
  "signed-out": "The next answer comes after you have signed in; your verdicts are kept.",
};

// one outbox per project and person, whatever filter the address has
const outbox = new Outbox(desk.dataset.desk.split("?")[0], desk.dataset.person, {
  onChange: showOutbox,
  onRefused: (why) => {
    refused.push(why.slice(0, 200));
    refusedShow(refused);
  },
});
const refused = [];
refusedShow(refusedBefore());
let hadEntries = outbox.size > 0;
showOutbox(outbox);
outbox.flush();

function showOutbox(box) {
  const { size } = box;
  banner.hidden = size === 0;
  if (size) {
    const kept = size === 1 ? "1 verdict is kept" : `${size} verdicts are kept`;
    const words = {
      "signed-out": `You have been signed out. ${kept} in this browser: sign in and go on.`,
      "other-person": `Another person is signed in. ${kept} in this browser until you sign in again.`,
      resting: `${box.why} ${kept} in this browser and will be sent in order.`,
    };
    // update the text, keep the form: the person may be typing in it
    const line = banner.querySelector("p") ?? banner.appendChild(document.createElement("p"));
    line.textContent = words[box.state] ?? `No connection. ${kept} in this browser and will be sent in order.`;
    const rest = document.querySelector("#item:not([data-completion])");
    if (rest) rest.textContent = coming(box);
    const form = banner.querySelector("form");
    if (box.state !== "signed-out") form?.remove();
    else if (!form) banner.append(signInForm({ next: desk.dataset.desk, onDone: () => box.flush() }));
  } else if (hadEntries) {
    // all votes were sent: show the page as the server renders it, and what was refused again
    refusedKeep();
    location.reload();
  }
  hadEntries = size > 0;
}

function coming(box) {
  if (!box.size) return "The next answer is on its way …";
  return COMING[box.state] ?? "The next answer is loaded once the kept verdicts are sent.";
}

function refusedShow(whys) {
  if (!whys.length) return;
  const text = whys.length === 1 ? "One verdict was refused" : `${whys.length} verdicts were refused, the last one`;
  toast({ level: "error", text: `${text}: ${whys.at(-1)}` });
}

function refusedKeep() {
  try {
    if (refused.length) sessionStorage.setItem(REFUSED, JSON.stringify(refused));
  } catch {
    // sessionStorage is disabled: the messages were on the screen until now
  }
}

function refusedBefore() {
  try {
    const texts = JSON.parse(sessionStorage.getItem(REFUSED)) ?? [];
    sessionStorage.removeItem(REFUSED);
    return texts;
  } catch {
    return [];
  }
}

// -- the next item, at once

function promote() {
  // the undo key is for what comes now; an older toast can still be clicked
  for (const button of document.querySelectorAll("[data-undo-now]")) delete button.dataset.undoNow;
  const prefetched = document.getElementById("prefetched");
  const hadFocus = document.getElementById("stage").contains(document.activeElement);
  const item = document.getElementById("item");
  const form = document.getElementById("verdicts");
  if (item.dataset.completion) judged.add(Number(item.dataset.completion));
  const next = prefetched?.content.cloneNode(true) ?? ahead?.next(gone());
  prefetched?.remove();
  if (next) {
    const [nextItem, nextForm] = [next.querySelector("#item"), next.querySelector("#verdicts")];
    item.replaceWith(nextItem);
    form.after(nextForm);
    retire(form);
    htmx.process(nextForm);
    nextItem.dispatchEvent(new CustomEvent("page:changed", { bubbles: true }));
  } else {
    const rest = document.createElement("section");
    rest.id = "item";
    rest.className = "card empty";
    rest.textContent = coming(outbox);
    item.replaceWith(rest);
    const place = document.createElement("div"); // of the form, if an item is loaded meanwhile
    place.id = "verdicts";
    form.after(place);
    retire(form);
  }
  if (hadFocus) document.getElementById("item").focus({ preventScroll: true });
  scrollTo({ top: 0 });
  tabs?.tell();
  remember();
}

// a form whose request is under way stays in the page, out of sight, until the answer replaces the
// stage: htmx tells the end of a request on the element that made it
function retire(form) {
  if (!inFlight) return form.remove();
  form.hidden = true;
  form.removeAttribute("id");
}

document.addEventListener("htmx:beforeRequest", (event) => {
  const { elt, requestConfig, pathInfo } = event.detail;
  if (!elt.matches("[data-verdicts]")) return;
  const body = [...requestConfig.formData].filter(([name]) => name !== "csrfmiddlewaretoken");
  const entry = { url: pathInfo.requestPath, body };
  if (outbox.size) {
    event.preventDefault(); // in order: behind those that wait already
    outbox.keep(entry, outbox.state);
  } else {
    inFlight = entry;
  }
  promote();
});

// before the listener of app.js, which asks people to reload the page
document.addEventListener("htmx:beforeSwap", (event) => {
  if (!inFlight || !event.detail.xhr.responseURL.includes("/accounts/login/")) return;
  event.detail.handled = true;
  keepInFlight("signed-out", event.detail.xhr);
}, { capture: true });

document.addEventListener("htmx:afterRequest", (event) => {
  if (!inFlight || event.detail.pathInfo.requestPath !== inFlight.url) return;
  const { xhr, successful } = event.detail;
  const { status } = xhr;
  if (successful) inFlight = null;
  else if (status === 429) {
    outbox.rest(xhr.responseText);
    keepInFlight("resting", xhr);
  } else if (status === 409) keepInFlight("other-person", xhr);
  else if (status === 0 || status >= 500) keepInFlight("offline", xhr);
  else if (status === 401 || (status === 403 && !xhr.getResponseHeader("HX-Trigger"))) keepInFlight("signed-out", xhr);
  else if (status === 403) {
    // the project was archived, or the person's role has changed: the page says so
    inFlight = null;
    location.reload();
  } else {
    inFlight = null; // refused: the toast says why
    stageReload();
  }
});
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    event.detail.handled = Boolean(inFlight) || keptRequests.has(event.detail.xhr);
  }, true);
}

function keepInFlight(state, xhr) {
  const entry = inFlight;
  inFlight = null;
  keptRequests.add(xhr);
  outbox.keep(entry, state);
  setTimeout(() => document.querySelectorAll(RETIRED).forEach((form) => form.remove()));
}

let stageHadFocus = false;
document.addEventListener("htmx:beforeSwap", (event) => {
  stageHadFocus = event.detail.target.id === "stage" && event.detail.target.contains(document.activeElement);
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (stageHadFocus) document.getElementById("item")?.focus({ preventScroll: true });
  stageHadFocus = false;
  if (event.detail.target.id === "stage") stageChanged();
});

// -- other tabs

// the id on the screen and the one after it
function shownHere() {
  const next = document.getElementById("prefetched")?.content.querySelector("#item");
  const items = [document.getElementById("item"), next];
  return items.map((item) => Number(item?.dataset.completion)).filter(Boolean);
}

function stageChanged() {
  // an item that came back by undo is to be judged again
  for (const id of shownHere()) judged.delete(id);
  tabs?.tell();
  lookAhead();
}

function stageReload() {
  htmx.ajax("GET", desk.dataset.desk, { target: "#stage", select: "#stage", swap: "outerHTML" });
}

const tabs = globalThis.BroadcastChannel && new Tabs(`${desk.dataset.desk.split("?")[0]}:${desk.dataset.person}`, {
  shown: shownHere,
  onClash: () => inFlight === null && !outbox.size && stageReload(),
});

document.addEventListener("htmx:configRequest", (event) => {
  const elsewhere = tabs?.elsewhere ?? [];
  if (elsewhere.length) event.detail.headers["X-Elsewhere"] = elsewhere.join(",");
});

// a vote's answer brings its own row only; the eleventh goes
document.addEventListener("htmx:oobAfterSwap", (event) => {
  if (event.detail.target.id !== "history-list") return;
  for (const row of document.querySelectorAll("#history-list li:nth-child(n + 11)")) row.remove();
});

// -- without a connection

// items that were judged on this page
const judged = new Set();
const ahead = desk.dataset.ahead ? new Ahead(desk.dataset.ahead, desk.dataset.person) : null;

// items whose verdicts wait to be sent
function kept() {
  return outbox.entries.map(({ url }) => Number(/\/completions\/(\d+)\//.exec(url)?.[1]));
}

function gone() {
  return new Set([...judged, ...kept(), ...shownHere(), ...(tabs?.elsewhere ?? [])]);
}

async function lookAhead() {
  if (!ahead) return;
  await ahead.load(gone());
  const waiting = document.querySelector("#item:not([data-completion])") && document.getElementById("verdicts");
  if (waiting && ahead.left(gone()).length) promote();
  remember();
}

// keep the page as it is now: a reload without a connection shows it again
let remembering = 0;
function remember() {
  if (!ahead) return;
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const copy = document.documentElement.cloneNode(true);
    copy.querySelector("#toasts").replaceChildren();
    for (const form of copy.querySelectorAll(RETIRED)) form.remove();
    cachePut(desk.dataset.desk, `<!doctype html>${copy.outerHTML}`);
    ahead.keep(new Set([...judged, ...kept()]));
  }, 300);
}

// after the page itself, which is waited for
setTimeout(async () => {
  await lookAhead();
  // a page that was kept may show what has a verdict by now
  while (inFlight === null && kept().includes(shownHere()[0])) promote();
}, 500);

if (ahead && navigator.serviceWorker) {
  navigator.serviceWorker.register(desk.dataset.worker, { scope: "/projects/" }).catch(() => {});
  addEventListener("load", () => {
    const files = performance.getEntriesByType("resource").map(({ name }) => name.split("#")[0]);
    cacheFiles([...new Set(files.filter((name) => new URL(name).pathname.startsWith("/static/")))]);
  });
}

// -- corrections

// the field begins with the answer's own text, once it is opened
function correctionOf(details) {
  const field = details.querySelector("textarea");
  if (!field.value) field.value = field.dataset.text;
  return field;
}

document.addEventListener("toggle", (event) => {
  if (event.target.matches?.("[data-correction]") && event.target.open) correctionOf(event.target);
}, true);

// before htmx: a text that somebody wrote is not dropped with an up or a skip
document.addEventListener("submit", (event) => {
  const field = event.target.querySelector?.("#correction");
  if (!field) return;
  if (field.value.trim() === field.dataset.text.trim()) field.value = "";
  const button = event.submitter;
  if (!field.value || (button?.name === "verdict" && button.value === "down")) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  toast({ level: "error", text: "You have corrected the answer: save the correction, or empty its field first." });
  field.focus();
}, true);

// -- keys and swipes

const press = (selector) => () => {
  const button = document.querySelector(selector);
  if (!button) return false;
  button.click();
};
const verdict = (value) => press(`#verdicts .verdict[value=${value}]`);
const undo = () => (document.querySelector("[data-undo-now]") ?? document.querySelector("[data-undo] button"))?.click();
const fold = (id) => () => {
  const details = document.getElementById(id);
  if (details) details.open = !details.open;
};
const reasons = Object.fromEntries(
  [..."123456789"].map((digit) => [
    digit,
    () => document.querySelectorAll("#last [name=reasons]")[digit - 1]?.click() ?? undefined,
  ]),
);

document.querySelector("[data-view]")?.addEventListener("change", (event) => {
  event.currentTarget.requestSubmit();
});

hotkeys(
  {
    u: verdict("up"),
    ArrowRight: verdict("up"),
    d: verdict("down"),
    ArrowLeft: verdict("down"),
    s: press("#verdicts [formaction]:not([name=flag])"),
    f: press("#verdicts [name=flag]"),
    z: undo,
    Backspace: undo,
    c: () => {
      const comment = document.querySelector("#verdicts [data-comment]");
      if (!comment) return false;
      comment.open = true;
      comment.querySelector("textarea").focus();
    },
    e: () => {
      const correction = document.querySelector("#verdicts [data-correction]");
      if (!correction) return false;
      correction.open = true;
      correctionOf(correction).focus();
    },
    g: fold("guidelines"),
    "?": () => document.getElementById("keys").showModal(),
    Enter: (event) => (event.target === document.body ? document.getElementById("item")?.focus() : false),
    ...reasons,
  },
  { blocked: () => inFlight !== null },
);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && ["comment", "correction"].includes(event.target.id)) event.target.blur();
});

// how far a finger moves sideways for a verdict, in pixels
const SWIPED = 90;
let start = null;
desk.addEventListener("touchstart", (event) => {
  const touch = event.touches[0];
  const scrolls = event.target.closest("pre, table");
  start = event.touches.length === 1 && !scrolls && event.target.closest("#item") ? touch : null;
}, { passive: true });
desk.addEventListener("touchmove", (event) => {
  if (!start) return;
  const [dx, dy] = moved(event.touches[0]);
  if (Math.abs(dy) > 40) return settle();
  const item = document.getElementById("item");
  if (Math.abs(dx) > 12) item.style.transform = `translateX(${dx / 2}px)`;
  // the verdict that letting go would cast, by colour and word
  item.dataset.swipe = Math.abs(dx) > SWIPED ? (dx > 0 ? "up" : "down") : "";
}, { passive: true });
desk.addEventListener("touchend", (event) => {
  if (!start) return;
  const [dx, dy] = moved(event.changedTouches[0]);
  settle();
  if (Math.abs(dx) > SWIPED && Math.abs(dy) < 40 && !inFlight) verdict(dx > 0 ? "up" : "down")();
}, { passive: true });

function moved(touch) {
  return [touch.clientX - start.clientX, touch.clientY - start.clientY];
}

function settle() {
  start = null;
  const item = document.getElementById("item");
  if (!item) return;
  item.style.transform = "";
  delete item.dataset.swipe;
}
