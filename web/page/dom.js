// Elements. Text is only ever set as text: what events hold is never markup.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false)
      made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A number as a person reads it; the exact one is its value, and its title where that says more.
export function datum(value, shown, exactly) {
  return element("data", { value, title: exactly === shown ? undefined : exactly }, shown);
}

// Text of others, which may turn the direction of writing: only its own.
export function foreign(text, attributes = {}) {
  return element("bdi", attributes, text);
}

// columns: [{title, number}], rows: arrays of nodes. The first cell of a row is its header.
export function table(caption, columns, rows) {
  const heads = columns.map((column) =>
    element("th", { scope: "col", class: column.number ? "number" : undefined }, column.title),
  );
  const lines = rows.map((cells) =>
    element(
      "tr",
      {},
      ...cells.map((cell, at) =>
        element(
          at === 0 ? "th" : "td",
          { scope: at === 0 ? "row" : undefined, class: columns[at].number ? "number" : undefined },
          cell,
        ),
      ),
    ),
  );
  const whole = element(
    "table",
    {},
    element("caption", { class: "unseen" }, caption),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...lines),
  );
  // It may be wider than a phone, and then is scrolled, by keyboard too.
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, whole);
}

// A panel of the page: what is shown in it, and a note where that is old or away.
export class Panel {
  constructor(id) {
    this.root = document.getElementById(id);
    this.body = this.root.querySelector(".body");
    this.aside = this.root.querySelector(".aside");
    this.note = this.root.querySelector(".note");
  }

  show(...children) {
    this.body.replaceChildren(...children);
  }

  nothing(text) {
    this.show(element("p", { class: "quiet" }, text));
  }

  away(text) {
    this.note.hidden = !text;
    if (this.note.textContent !== text) this.note.textContent = text;
  }
}
