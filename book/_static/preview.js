// Shows what a link inside the book leads to, when it is pointed at or reached by the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector("article");
  if (!article || !matchMedia("(hover: hover)").matches) return;
  const LINKS = "a.reference[href*='#'], a.internal[href*='#']";
  let loading, waiting, tip, owner;

  const load = () => (loading ??= new Promise((done) => {
    const script = document.createElement("script");
    script.src = `${document.documentElement.dataset.content_root}_static/previews.js`;
    script.onload = () => done(window.llbookPreviews);
    document.head.append(script);
  }));
  const address = (link) => {
    const url = new URL(link.href);
    return decodeURIComponent(url.pathname.split("/").pop() + url.hash);
  };
  const hide = () => {
    clearTimeout(waiting);
    tip?.remove();
    owner?.removeAttribute("aria-describedby");
    tip = owner = undefined;
  };
  const show = async (link) => {
    const html = (await load())[address(link)];
    if (!html || owner !== link) return;
    tip = document.createElement("div");
    tip.className = "bd-article preview";
    tip.id = "preview";
    tip.setAttribute("role", "tooltip");
    tip.innerHTML = html;
    document.body.append(tip);
    link.setAttribute("aria-describedby", tip.id);
    await window.MathJax?.typesetPromise?.([tip]);
    if (!tip) return;
    const at = link.getBoundingClientRect();
    const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 12);
    const below = at.bottom + tip.offsetHeight + 8 < innerHeight;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${(below ? at.bottom + 6 : Math.max(8, at.top - tip.offsetHeight - 6)) + scrollY}px`;
  };
  const begin = (event) => {
    const link = event.target.closest?.(LINKS);
    if (!link || link === owner) return;
    hide();
    owner = link;
    waiting = setTimeout(show, 250, link);
  };
  const end = (event) => {
    if (event.target.closest?.(LINKS) === owner) hide();
  };
  article.addEventListener("mouseover", begin);
  article.addEventListener("focusin", begin);
  article.addEventListener("mouseout", end);
  article.addEventListener("focusout", end);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
});
