// What every page has: local times, toasts, menus, dialogs, and what to say when a request fails.
import { cacheForget } from "./desk_cache.js";
import { localTimes } from "./time.js";
import { toast } from "./toast.js";
import { enrich } from "./prose.js";

function refresh(root) {
  localTimes(root);
  enrich(root);
}

refresh(document);
// signed out: the next person at this computer must not find what the last one had open
if (location.pathname.startsWith("/accounts/")) cacheForget();
// on a narrow screen the tabs scroll: the present one must be in sight
const tab = document.querySelector(".bar [aria-current]");
if (tab) tab.closest(".tabs").scrollLeft = tab.offsetLeft - innerWidth / 3;
setInterval(() => localTimes(document), 30_000);
document.addEventListener("htmx:load", (event) => refresh(event.detail.elt));
document.addEventListener("page:changed", (event) => refresh(event.target));

document.addEventListener("click", (event) => {
  const opener = event.target.closest?.("[data-open-dialog]");
  if (opener) document.getElementById(opener.dataset.openDialog)?.showModal();
  for (const menu of document.querySelectorAll("[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
  // a click on the backdrop is a click on the dialog itself
  if (event.target instanceof HTMLDialogElement) event.target.close();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("[data-menu][open]")) {
    menu.open = false;
    menu.querySelector("summary")?.focus();
  }
});

// one press is one request: a second click on a plain form would send it twice
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post" || form.hasAttribute("hx-post")) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 4000);
});

// a box that checks all boxes of this name in its form
document.addEventListener("change", (event) => {
  const name = event.target.dataset?.checkAll;
  if (!name) return;
  for (const box of event.target.form.querySelectorAll("input[type=checkbox]")) {
    if (box.name === name) box.checked = event.target.checked;
  }
});

document.addEventListener("toast", (event) => toast(event.detail));
document.addEventListener("htmx:sendError", (event) => {
  if (!event.detail.handled && !isPoll(event)) {
    toast({ level: "error", text: "No connection to the server. Nothing was changed: try again." });
  }
});
document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail;
  if (event.detail.handled || isPoll(event) || xhr.getResponseHeader("HX-Trigger")) return;
  const texts = {
    403: "The server refused: reload the page, sign in if it asks, and try again.",
    503: "The server is not ready for the moment. Nothing was changed: try again in a few seconds.",
  };
  toast({
    level: "error",
    text: texts[xhr.status] ?? `The server could not do that (${xhr.status}). Reload the page and try again.`,
  });
});
// a redirect to the sign-in page must not be put into a corner of this page
document.addEventListener("htmx:beforeSwap", (event) => {
  if (!event.detail.xhr.responseURL.includes("/accounts/login/")) return;
  event.detail.shouldSwap = false;
  if (!event.detail.handled && !isPoll(event)) {
    toast({ level: "error", text: "You have been signed out: reload the page and sign in." });
  }
});

function isPoll(event) {
  return event.detail.elt?.getAttribute?.("hx-trigger")?.includes("every");
}
