// Calls the action of a key. Ignored while the user types, while a dialog is open, and while
// `blocked()` is true. An action that returns false leaves the key's default behaviour.
const TYPING = "input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]";

export function hotkeys(actions, { blocked = () => false } = {}) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.repeat) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest?.(TYPING) || document.querySelector("dialog[open]")) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || blocked()) return;
    if (action(event) !== false) event.preventDefault();
  });
}
