// Compare: both answers stream at once; the choices wake up when both are whole.
import { hotkeys } from "./hotkeys.js";
import { csrfToken } from "./outbox.js";
import { events } from "./sse.js";
import { toast } from "./toast.js";

const duel = document.getElementById("duel");
const judge = document.getElementById("judge");
const ask = document.getElementById("ask");

async function write(side, url) {
  const raw = side.querySelector("[data-raw]");
  let text = "";
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { Accept: "text/event-stream", "X-CSRFToken": csrfToken() },
    });
    if (!(response.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
      throw new Error(
        (response.headers.get("Content-Type") ?? "").startsWith("text/plain")
          ? await response.text()
          : `The server could not answer (${response.status}). Reload the page to try again.`,
      );
    }
    for await (const { event, data } of events(response.body)) {
      if (event === "piece") {
        text += data.text;
        raw.textContent = text;
      } else if (event === "done" || event === "error") {
        show(side, data);
        return;
      }
    }
    throw new Error("The connection broke while an answer was being written: reload the page.");
  } catch (error) {
    // browsers report a connection that fails as a TypeError with texts such as 'Failed to fetch'
    const broken = "No connection to the server: reload the page to get the answer.";
    const text = error instanceof TypeError ? broken : error.message || "The answer did not come.";
    toast({ level: "error", text });
  }
}

function show(side, { html, ready }) {
  const template = document.createElement("template");
  template.innerHTML = html; // rendered and cleaned by the server
  const fresh = template.content.firstElementChild;
  side.replaceWith(fresh);
  fresh.dispatchEvent(new CustomEvent("page:changed", { bubbles: true }));
  if (ready) for (const button of judge?.querySelectorAll("button") ?? []) button.disabled = false;
}

for (const side of duel?.querySelectorAll("[data-answer]") ?? []) write(side, side.dataset.answer);

duel?.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-retry]")) return;
  event.preventDefault();
  const side = event.target.closest("[data-side]");
  const raw = document.createElement("div");
  raw.className = "prose raw";
  raw.dataset.raw = "";
  side.replaceChildren(side.querySelector("h2"), raw);
  write(side, event.target.getAttribute("action"));
});

const buttons = [...(judge?.querySelectorAll("button") ?? [])];
hotkeys(
  Object.fromEntries(buttons.map((button, index) => [String(index + 1), () => button.click()])),
  { blocked: () => !buttons.length || buttons[0].disabled },
);

ask?.addEventListener("click", (event) => {
  const idea = event.target.closest("[data-idea]");
  if (!idea) return;
  ask.elements.question.value = idea.textContent;
  ask.requestSubmit();
});
ask?.elements.question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask.requestSubmit();
});
