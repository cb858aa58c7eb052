// Sign in again without leaving the page, after the session has expired.
import { csrfToken } from "./outbox.js";

const LOGIN = "/accounts/login/";

export function signInForm({ next, onDone }) {
  const form = document.createElement("form");
  form.className = "row tight sign-in";
  form.append(
    field("login", "email", "E-mail address", "username"),
    field("password", "password", "Password", "current-password"),
    button("Sign in"),
    link(next),
    fault(),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, onDone);
  });
  return form;
}

async function send(form, onDone) {
  const why = form.querySelector("[role=alert]");
  why.textContent = "";
  try {
    await fetch(LOGIN); // a token for the form, if the cookie has gone
    const answer = await fetch(LOGIN, {
      method: "POST",
      headers: { "X-CSRFToken": csrfToken(), "X-Requested-With": "XMLHttpRequest" },
      body: new URLSearchParams(new FormData(form)),
    });
    if (answer.status === 429) throw new Error("Too many attempts: wait a minute.");
    if (answer.status === 400) throw new Error("That address and password do not belong together.");
    if (!answer.ok) throw new Error(`The server could not answer (${answer.status}).`);
    const { location } = await answer.json();
    if (location.includes("/2fa/")) throw new Error("Your account asks for a code: use the link.");
    onDone();
  } catch (error) {
    why.textContent = error instanceof TypeError ? "No connection." : error.message;
  }
}

function field(name, type, label, autocomplete) {
  const input = document.createElement("input");
  Object.assign(input, { name, type, autocomplete, required: true, className: "compact", placeholder: label });
  input.setAttribute("aria-label", label);
  return input;
}

function button(text) {
  const element = document.createElement("button");
  Object.assign(element, { className: "btn compact", textContent: text });
  return element;
}

function link(next) {
  const element = document.createElement("a");
  element.href = `${LOGIN}?next=${encodeURIComponent(next)}`;
  element.target = "_blank";
  element.textContent = "or in a new tab";
  return element;
}

function fault() {
  const element = document.createElement("span");
  element.setAttribute("role", "alert");
  return element;
}
