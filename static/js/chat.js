// The demo: answers stream in, can be stopped, copied, asked for again; the last question can be
// edited. Without this file the same forms work as plain pages.
import { hotkeys } from "./hotkeys.js";
import { csrfToken } from "./outbox.js";
import { copyText } from "./prose.js";
import { signInForm } from "./signin.js";
import { events } from "./sse.js";
import { toast } from "./toast.js";

const talk = document.getElementById("talk");
const composer = document.getElementById("composer");
const field = document.getElementById("text");
const send = composer.querySelector("[type=submit]");
const stop = document.getElementById("stop");
let controller = null;

// A message that was not sent outlives a reload of this tab; on a shared computer it stays with the
// person who wrote it.
const DRAFT = `draft:${composer.dataset.person}`;

function keepDraft(text) {
  try {
    if (text) sessionStorage.setItem(DRAFT, text);
    else sessionStorage.removeItem(DRAFT);
  } catch {
    // sessionStorage is disabled: the message is kept until the page is closed
  }
}

function readDraft() {
  try {
    return sessionStorage.getItem(DRAFT) ?? "";
  } catch {
    return "";
  }
}

class SignedOut extends Error {}

const nearEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 160;
const toEnd = () => scrollTo({ top: document.documentElement.scrollHeight });

function bubble(text) {
  const element = document.createElement("div");
  element.className = "bubble";
  element.textContent = text;
  return element;
}

function blankReply() {
  const reply = document.createElement("div");
  reply.className = "reply streaming";
  const prose = document.createElement("div");
  prose.className = "prose raw";
  reply.append(prose);
  return reply;
}

function busy(on) {
  stop.hidden = !on;
  send.hidden = on;
  talk.setAttribute("aria-busy", String(on));
}

async function stream(url, fields, reply) {
  controller = new AbortController();
  busy(true);
  const prose = reply.querySelector(".prose");
  let text = "";
  let ended = false;
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { Accept: "text/event-stream", "X-CSRFToken": csrfToken() },
      body: new URLSearchParams(fields),
      signal: controller.signal,
    });
    if (!(response.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
      if (response.redirected && response.url.includes("/accounts/login/")) throw new SignedOut();
      throw new Error(await reason(response));
    }
    for await (const { event, data } of events(response.body)) {
      if (event === "turn") {
        // a first message has made its conversation: from now on this page is that one
        history.replaceState(null, "", data.url);
        composer.setAttribute("action", `${data.url}send/`);
        document.querySelector("[data-choose]")?.setAttribute("action", `${data.url}choose/`);
      } else if (event === "piece") {
        const follow = nearEnd();
        text += data.text;
        prose.textContent = text;
        if (follow) toEnd();
      } else if (event === "done" || event === "error") {
        ended = true;
        replace(reply, data.html);
      }
    }
    if (!ended) throw new Error("The connection broke while the answer was being written.");
    return true;
  } catch (error) {
    if (error.name === "AbortError") {
      await showStopped(reply);
      return true;
    }
    if (error instanceof SignedOut) askToSignIn();
    else toast({ level: "error", text: fault(error, text) });
    reply.classList.remove("streaming");
    return false;
  } finally {
    controller = null;
    busy(false);
    if (matchMedia("(pointer: fine)").matches && !document.getElementById("signed-out")) field.focus();
  }
}

// browsers report a connection that fails as a TypeError with texts such as 'Failed to fetch'
function fault(error, text) {
  if (!(error instanceof TypeError)) return error.message || "The answer did not come.";
  if (text) return "The connection broke while the answer was being written.";
  return "No connection to the server. Your message is still here: send it again.";
}

function askToSignIn() {
  document.getElementById("signed-out")?.remove();
  const box = document.createElement("div");
  box.className = "alert warning";
  box.id = "signed-out";
  const why = document.createElement("p");
  why.textContent = "You have been signed out. Your message is still here: sign in and send it again.";
  const form = signInForm({ next: location.pathname, onDone: signedIn });
  function signedIn() {
    box.remove();
    // signing in has replaced the token that the forms of this page were rendered with
    for (const input of document.querySelectorAll("[name=csrfmiddlewaretoken]")) input.value = csrfToken();
  }
  box.append(why, form);
  composer.before(box);
  form.querySelector("input")?.focus();
}

async function reason(response) {
  if (response.status === 403) {
    return "The server refused: reload the page and sign in if it asks. Your message is kept.";
  }
  // what was refused with a reason: a limit of a share link, a message that is too long
  if ((response.headers.get("Content-Type") ?? "").startsWith("text/plain")) return response.text();
  return `The server could not answer (${response.status}). Your message is still here.`;
}

function replace(reply, html) {
  const follow = nearEnd();
  const template = document.createElement("template");
  template.innerHTML = html; // rendered and cleaned by the server
  const fresh = template.content.firstElementChild;
  for (const old of talk.querySelectorAll("[data-again], [data-edit]")) old.remove();
  reply.replaceWith(fresh);
  htmx.process(fresh);
  fresh.dispatchEvent(new CustomEvent("page:changed", { bubbles: true }));
  if (follow) toEnd();
}

// what had come before the stop is stored: show it with its thumbs, as the server has it
async function showStopped(reply) {
  reply.classList.remove("streaming");
  for (let wait = 300; wait < 10_000; wait *= 1.3) {
    // a server that is busy notices late that nobody listens
    await new Promise((resolve) => setTimeout(resolve, wait));
    const page = await fetch(location.href).then((response) => response.text());
    const shown = new DOMParser().parseFromString(page, "text/html").querySelectorAll(".reply");
    const last = shown[shown.length - 1];
    if (last?.querySelector(".prose")) {
      replace(reply, last.outerHTML);
      return;
    }
  }
  toast({ level: "error", text: "Stopped. Reload the page to see what was kept." });
}

composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = field.value;
  if (!text.trim() || controller) return;
  document.getElementById("hello")?.remove();
  const said = bubble(text);
  const reply = blankReply();
  talk.append(said, reply);
  field.value = "";
  toEnd();
  if (!(await stream(composer.getAttribute("action"), { text }, reply)) && !reply.textContent) {
    said.remove();
    reply.remove();
    field.value = text;
    keepDraft(text);
  } else keepDraft("");
});
if (!field.value) field.value = readDraft();

field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!controller) composer.requestSubmit();
});
stop.addEventListener("click", () => controller?.abort());

async function again(form, fields = {}) {
  if (controller) return;
  const reply = form.closest(".reply");
  const fresh = blankReply();
  const action = form.getAttribute("action");
  reply.replaceWith(fresh);
  if (!(await stream(action, fields, fresh)) && !fresh.textContent) fresh.replaceWith(reply);
}

talk.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-again]")) return;
  event.preventDefault();
  again(event.target);
});

// where the project learns from it; a note that is lost costs nothing
function noteCopied(url) {
  if (!url) return;
  fetch(url, { method: "POST", headers: { "X-CSRFToken": csrfToken() }, keepalive: true }).catch(() => {});
}

talk.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy-reply]");
  if (copy) {
    // reasoning is not part of the answer
    await copyText(copy.closest(".reply").querySelector(".prose:not(details *)")?.innerText ?? "");
    toast({ text: "Copied." });
    noteCopied(copy.dataset.copied);
  }
  if (event.target.closest("[data-edit]")) edit(lastSaid());
  const idea = event.target.closest("[data-idea]");
  if (idea) {
    field.value = idea.textContent;
    composer.requestSubmit();
  }
});

// the last question can be edited and sent again: by its button, or by the arrow up
document.addEventListener("keydown", (event) => {
  if (event.key === "ArrowUp" && event.target === field && !field.value) {
    edit(lastSaid());
    event.preventDefault();
  }
});

function lastSaid() {
  return [...talk.querySelectorAll(".bubble")].at(-1);
}

function edit(said) {
  const form = said?.nextElementSibling?.querySelector("[data-again]");
  if (!form || controller) return;
  const before = said.textContent;
  const area = document.createElement("textarea");
  area.className = "bubble-edit";
  area.value = before;
  area.setAttribute("aria-label", "Edit your message; Enter sends it, Escape leaves it as it was");
  const done = (text) => {
    area.replaceWith(said);
    if (text === null || !text.trim() || text === before) return;
    said.textContent = text;
    again(form, { text });
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") done(null);
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      done(area.value);
    }
  });
  said.replaceWith(area);
  area.focus();
}

document.querySelector("[data-choose] select")?.addEventListener("change", (event) => {
  event.target.form.requestSubmit();
});
if (!document.getElementById("hello")) toEnd();

// E opens the last answer for correction, as at the annotation page
hotkeys({
  e: () => {
    const correction = [...talk.querySelectorAll("details.correct")].at(-1);
    if (!correction) return false;
    correction.open = true;
    correction.querySelector("textarea").focus();
  },
});
