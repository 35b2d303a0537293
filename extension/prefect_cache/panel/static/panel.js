// The page's side of the panel. It shows what the kernel answers and knows nothing of the store.
// Text from data, names and manifests becomes text nodes; nothing here parses HTML.

const ROW = 28; // pixels of a row of the list; panel.css has the same
const SHOWN = 10; // rows of the list that are seen at once
const POOL = SHOWN + 12; // rows that exist; scrolling moves them
const AHEAD = 60; // rows asked for at once
const PAGE = 50;
const HEADS = [
  ["name", "Name"], ["rows", "Rows"], ["columns", "Cols"], ["size", "Size"], ["created", "Created"],
  ["used", "Used"], ["hits", "Hits"], ["saved", "Saved"], ["notebook", "Notebook"],
];
const FLAGS = [["pinned", "Pinned"], ["stale", "Expired"], ["damaged", "Damaged"], ["notebook", "This notebook"]];
const WORDS = ["size>1GB", "unused>7d"];
const TEXTUAL = new Set(["name", "notebook"]);

function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function button(label, act, attributes) {
  return h("button", { type: "button", class: "pc-button", onclick: act, ...attributes }, label);
}

const number = (n) => n.toLocaleString("en-US");
const some = (n, noun) => `${number(n)} ${n === 1 ? noun : noun.endsWith("y") ? noun.slice(0, -1) + "ies" : noun + "s"}`;

function bytes(n) {
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (n < 999.5 || unit === "TB") return `${unit !== "B" && n < 9.95 ? n.toFixed(1) : n.toFixed(0)} ${unit}`;
    n /= 1000;
  }
}

// A conversation with the kernel: replies find their question by its number, and where a newer question of the same
// kind was asked meanwhile, the older one's reply is dropped.
class Kernel {
  constructor(model, pushed, busy) {
    this.model = model;
    this.pushed = pushed;
    this.busy = busy;
    this.name = Math.random().toString(36).slice(2);
    this.count = 0;
    this.waiting = new Map();
    this.newest = new Map();
    this.hear = (message) => this.heard(message);
    model.on("msg:custom", this.hear);
    this.model.send({ op: "hello", id: this.name });
  }

  ask(op, words = {}, kind = op) {
    const id = `${this.name}-${++this.count}`;
    this.newest.set(kind, id);
    return new Promise((resolve) => {
      this.waiting.set(id, { resolve, kind });
      this.model.send({ ...words, op, id });
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.busy(this.waiting.size > 0), 300);
    });
  }

  heard(message) {
    if (message.push) return this.pushed(message);
    const asked = this.waiting.get(message.id);
    if (!asked) return undefined; // another view's
    this.waiting.delete(message.id);
    if (!this.waiting.size) {
      clearTimeout(this.timer);
      this.busy(false);
    }
    return this.newest.get(asked.kind) === message.id ? asked.resolve(message) : undefined;
  }

  close() {
    clearTimeout(this.timer);
    this.model.off("msg:custom", this.hear);
    this.model.send({ op: "bye", id: this.name });
  }
}

class Panel {
  constructor(model, el) {
    this.kernel = new Kernel(model, (message) => this.pushed(message), (busy) => this.setBusy(busy));
    this.query = { search: "", flags: [], sort: "used", descending: true };
    this.rows = new Map();
    this.total = 0;
    this.active = 0;
    this.checked = new Map();
    this.every = false;
    this.id = this.kernel.name;
    this.status = h("span", { class: "pc-line", role: "status", "aria-live": "polite" });
    this.undo = button("Undo", () => this.act("undo"), { hidden: true });
    this.busyMark = h("span", { class: "pc-busy", hidden: true }, "kernel busy…");
    this.confirmBar = h("div", { class: "pc-confirm", hidden: true });
    this.detail = new Detail(this);
    this.root = h("div", { class: "pc", role: "region", "aria-label": "Prefect cache" },
      this.header(), this.toolbar(), this.grid(), this.actions(), this.confirmBar, this.detail.root,
      h("div", { class: "pc-status" }, this.status, this.undo, this.busyMark));
    // Keys typed here are not meant for the notebook; shortcuts with Ctrl or Cmd still are.
    this.root.addEventListener("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
    el.append(this.root);
    const first = JSON.parse(model.get("first"));
    this.show(first);
    if (first.error || Math.abs(Date.now() / 1000 - first.time) > 10) this.refresh();
  }

  close() {
    clearTimeout(this.typing);
    clearTimeout(this.fading);
    this.kernel.close();
  }

  // The frame around the list -----------------------------------------------------------------

  header() {
    this.count = h("span", { class: "pc-count" });
    this.fill = h("span", { class: "pc-fill" });
    this.meter = h("span", { class: "pc-meter", role: "meter", "aria-label": "Size of the store", "aria-valuemin": 0, "aria-valuemax": 100 }, this.fill);
    this.usage = h("span", { class: "pc-usage" });
    this.where = h("span", { class: "pc-where" });
    return h("div", { class: "pc-header" }, h("span", { class: "pc-title" }, "Prefect cache"),
      this.count, this.where, this.meter, this.usage);
  }

  toolbar() {
    this.search = h("input", {
      class: "pc-input pc-search", type: "search", placeholder: "Search name, column, notebook", "aria-label": "Search the cache",
      title: "Words to find in names, columns and notebooks; also size>1GB, unused>7d, rows>1000000, hits<1",
      spellcheck: "false",
      oninput: () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => this.ask({ search: this.search.value }), 120);
      },
      onkeydown: (event) => {
        if (event.key === "Escape" && this.search.value) this.search.value = "", this.ask({ search: "" });
        if (event.key === "ArrowDown") this.list.focus(), event.preventDefault();
      },
    });
    this.chips = [
      ...FLAGS.map(([flag, label]) => button(label, () => this.toggle(flag), { class: "pc-chip", "aria-pressed": "false", "data-flag": flag })),
      ...WORDS.map((word) => button(word.replace(">", " > "), () => this.toggleWord(word), { class: "pc-chip", "aria-pressed": "false", "data-word": word })),
    ];
    return h("div", { class: "pc-toolbar", role: "search" }, this.search, ...this.chips,
      h("span", { class: "pc-gap" }), button("Refresh", () => this.refresh("Up to date."), { title: "Read the store again" }));
  }

  toggle(flag) {
    const flags = this.query.flags;
    this.ask({ flags: flags.includes(flag) ? flags.filter((f) => f !== flag) : [...flags, flag] });
  }

  toggleWord(word) {
    const words = this.search.value.split(/\s+/).filter(Boolean);
    this.search.value = (words.includes(word) ? words.filter((w) => w !== word) : [...words, word]).join(" ");
    this.ask({ search: this.search.value });
  }

  // The list: a pool of rows that scrolling moves and refills -------------------------------------

  grid() {
    this.all = h("input", { type: "checkbox", "aria-label": "Choose all that are listed", tabindex: -1, onclick: () => this.checkAll() });
    this.heads = HEADS.map(([sort, label]) => h("span", { role: "columnheader", class: `pc-cell pc-${sort}` },
      button(label, () => this.sort(sort), { class: "pc-sort", tabindex: -1, "data-sort": sort })));
    const head = h("div", { class: "pc-row pc-head", role: "row" }, h("span", { class: "pc-check", role: "columnheader" }, this.all), ...this.heads);
    this.pool = Array.from({ length: POOL }, () => this.poolRow());
    this.space = h("div", { class: "pc-space", role: "presentation" }, ...this.pool.map((row) => row.node));
    this.empty = h("div", { class: "pc-empty", hidden: true });
    this.list = h("div", {
      class: "pc-list", role: "grid", tabindex: 0, "aria-label": "Cached entries", "aria-multiselectable": "true",
      "aria-colcount": HEADS.length + 1, onkeydown: (event) => this.key(event), onscroll: () => this.paint(),
    }, head, this.space, this.empty);
    return this.list;
  }

  poolRow() {
    const check = h("input", { type: "checkbox", tabindex: -1, "aria-label": "Choose this entry" });
    const cells = HEADS.map(([sort]) => h("span", { class: `pc-cell pc-${sort}`, role: "gridcell" }));
    const node = h("div", { class: "pc-row", role: "row", hidden: true }, h("span", { class: "pc-check", role: "gridcell" }, check), ...cells);
    const row = { node, check, cells, at: -1, key: "" };
    check.addEventListener("click", (event) => {
      event.stopPropagation();
      this.check(row.at);
    });
    node.addEventListener("click", () => {
      this.move(row.at);
      this.open(row.at);
    });
    return row;
  }

  show(reply) {
    if (reply.error) return this.say(reply.error, true);
    this.total = reply.total;
    this.bytes = reply.bytes;
    reply.rows.forEach((row, i) => this.rows.set(reply.first + i, row));
    const found = reply.total === reply.all ? some(reply.all, "entry") : `${number(reply.total)} of ${some(reply.all, "entry")}`;
    this.count.textContent = found;
    this.usage.textContent = reply.usage;
    this.fill.style.width = `${Math.min(100, 100 * reply.full)}%`;
    this.fill.classList.toggle("pc-tight", reply.full > 0.9);
    this.meter.setAttribute("aria-valuenow", Math.round(100 * reply.full));
    this.meter.setAttribute("aria-valuetext", reply.usage);
    this.where.textContent = reply.where;
    this.where.title = reply.where;
    this.list.setAttribute("aria-rowcount", reply.total + 1);
    this.space.style.height = `${reply.total * ROW}px`;
    this.empty.hidden = reply.total > 0;
    this.empty.textContent = reply.all ? "Nothing matches. Clear the search or a filter to see the others."
      : "Nothing is cached yet. Put %%prefect_cache at the top of a cell and run it.";
    this.active = Math.max(0, Math.min(this.active, reply.total - 1));
    this.marks();
    this.paint();
    return undefined;
  }

  marks() {
    const { sort, descending, flags } = this.query;
    this.heads.forEach((node, i) => {
      const on = HEADS[i][0] === sort;
      node.setAttribute("aria-sort", on ? (descending ? "descending" : "ascending") : "none");
    });
    const words = this.search.value.split(/\s+/);
    for (const chip of this.chips) {
      const { flag, word } = chip.dataset;
      chip.setAttribute("aria-pressed", String(flag ? flags.includes(flag) : words.includes(word)));
    }
  }

  paint() {
    const first = Math.max(0, Math.min(Math.floor(this.list.scrollTop / ROW) - 4, this.total - POOL));
    let missing = -1;
    for (let at = first; at < first + POOL; at++) {
      const row = this.pool[at % POOL];
      const data = at < this.total ? this.rows.get(at) : null;
      if (data === undefined && missing < 0) missing = at;
      this.fillRow(row, at, data);
    }
    this.all.checked = this.every;
    this.list.setAttribute("aria-activedescendant", this.total ? this.pool[this.active % POOL].node.id : "");
    this.paintActions();
    if (missing >= 0) this.fetch(missing);
  }

  fillRow(row, at, data) {
    row.node.hidden = at >= this.total;
    row.at = at;
    if (at >= this.total) return;
    const on = data ? this.every || this.checked.has(data[0]) : false;
    row.node.style.transform = `translateY(${at * ROW}px)`;
    row.node.id = `${this.id}-${at}`;
    row.node.setAttribute("aria-rowindex", at + 2);
    row.node.setAttribute("aria-selected", String(on));
    row.check.checked = on;
    row.node.classList.toggle("pc-active", at === this.active);
    row.node.classList.toggle("pc-open", Boolean(data) && data[0] === this.detail.key);
    const damaged = Boolean(data) && data[3] === "!";
    row.node.classList.toggle("pc-bad", damaged);
    row.cells.forEach((cell, i) => {
      if (i) cell.textContent = !data || damaged ? (damaged && i === 3 ? data[5] : "") : data[i === 1 ? 6 : i === 2 ? 7 : i === 3 ? 5 : i + 4];
    });
    row.cells[0].replaceChildren(...(data ? this.label(data, damaged) : []));
  }

  label(data, damaged) {
    const name = h("span", { class: "pc-label", title: data[1] }, data[1]);
    if (damaged) return [h("span", { class: "pc-badge pc-warn" }, "damaged"), name, h("span", { class: "pc-dim", title: data[6] }, data[6])];
    return [
      data[3].includes("p") ? h("span", { class: "pc-pin", role: "img", "aria-label": "pinned", title: "Pinned: retention leaves it alone" }, "★") : null,
      name, data[2] ? h("span", { class: "pc-dim", title: data[2] }, data[2]) : null,
      data[3].includes("x") ? h("span", { class: "pc-badge", title: "Its time to live has ended: the cell will run again" }, "expired") : null,
    ].filter(Boolean);
  }

  fetch(first) {
    clearTimeout(this.fetching);
    this.fetching = setTimeout(async () => {
      this.show(await this.kernel.ask("list", { ...this.query, first, count: AHEAD }));
    }, 30);
  }

  // Ask for another search, filter or order; what is shown stays until the answer is here.
  async ask(change) {
    Object.assign(this.query, change);
    this.every = false;
    this.marks();
    clearTimeout(this.fetching);
    const reply = await this.kernel.ask("list", { ...this.query, first: 0, count: AHEAD });
    if (reply.error) return this.say(reply.error, true);
    this.rows.clear();
    this.active = 0;
    this.list.scrollTop = 0;
    this.say("");
    return this.show(reply);
  }

  async refresh(line) {
    const first = Math.max(0, Math.floor(this.list.scrollTop / ROW) - 10);
    const reply = await this.kernel.ask("list", { ...this.query, first, count: AHEAD, fresh: true });
    if (!reply.error) this.rows.clear();
    if (line && !reply.error) this.say(line);
    this.show(reply);
  }

  sort(sort) {
    const again = this.query.sort === sort;
    this.ask({ sort, descending: again ? !this.query.descending : !TEXTUAL.has(sort) });
  }

  check(at) {
    const data = this.rows.get(at);
    if (!data) return;
    if (this.every) {
      this.every = false;
      this.checked.clear();
    }
    if (this.checked.has(data[0])) this.checked.delete(data[0]);
    else this.checked.set(data[0], data[4]);
    this.paint();
  }

  checkAll() {
    this.every = !this.every;
    this.checked.clear();
    this.paint();
  }

  move(at) {
    this.active = Math.max(0, Math.min(at, this.total - 1));
    const top = this.active * ROW;
    const seen = this.list.clientHeight - ROW; // the head covers one row
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (top + ROW > this.list.scrollTop + seen) this.list.scrollTop = top + ROW - seen;
    this.paint();
  }

  key(event) {
    if (event.target !== this.list) return;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: SHOWN, PageUp: -SHOWN, Home: -Infinity, End: Infinity };
    const { key } = event;
    if (key in steps) {
      if (event.shiftKey && Math.abs(steps[key]) === 1) this.check(this.active);
      this.move(this.active + steps[key]);
    } else if (key === " ") this.check(this.active);
    else if (key === "Enter") this.open(this.active, true);
    else if (key === "Delete" || key === "Backspace") this.evict();
    else if (key === "/") this.search.focus();
    else if (key === "p") this.pin();
    else if (key === "a" && (event.ctrlKey || event.metaKey)) this.checkAll();
    else if (key === "Escape" && this.detail.key) this.detail.hide();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  open(at, focus) {
    const data = this.rows.get(at);
    if (!data) return;
    this.detail.open(data[0], focus);
    this.paint();
  }

  // What is done to what is chosen ------------------------------------------------------------------

  actions() {
    this.chosen = h("span", { class: "pc-chosen" });
    this.pinButton = button("Pin", () => this.pin(), {});
    this.evictButton = button("Evict…", () => this.evict(), { class: "pc-button pc-danger" });
    this.actionBar = h("div", { class: "pc-actions", role: "toolbar", "aria-label": "For the chosen entries" },
      this.chosen, this.pinButton, this.evictButton, button("Clear", () => { this.checked.clear(); this.every = false; this.paint(); }));
    return this.actionBar;
  }

  paintActions() {
    const count = this.every ? this.total : this.checked.size;
    this.actionBar.hidden = !count;
    if (!count) return;
    const size = this.every ? this.bytes : [...this.checked.values()].reduce((a, b) => a + b, 0);
    this.chosen.textContent = `${number(count)} chosen, ${bytes(size)}`;
    this.evictButton.textContent = `Evict ${bytes(size)}…`;
    this.pinButton.textContent = this.pinned() ? "Unpin" : "Pin";
  }

  // What an action is for: all that is listed, else what is checked, else the row with the cursor.
  targets() {
    if (this.every) return { every: true, ...this.query };
    if (this.checked.size) return { keys: [...this.checked.keys()] };
    const data = this.rows.get(this.active);
    return data ? { keys: [data[0]] } : null;
  }

  pinned() {
    const keys = this.checked.size ? this.checked : new Map([[(this.rows.get(this.active) || [])[0], 0]]);
    const rows = [...this.rows.values()].filter((row) => this.every || keys.has(row[0]));
    return rows.length > 0 && rows.every((row) => row[3].includes("p"));
  }

  pin() {
    const targets = this.targets();
    if (targets) this.act("pin", { ...targets, on: !this.pinned() });
  }

  async evict(targets = this.targets()) {
    if (!targets) return;
    const plan = await this.kernel.ask("plan", targets);
    if (plan.error) return void this.say(plan.error, true);
    const names = plan.names.join(", ") + (plan.count > plan.names.length ? " and others" : "");
    const pins = plan.pinned ? ` ${number(plan.pinned)} of them pinned.` : "";
    this.confirm(`Evict ${names}? That is ${plan.text}.${pins}`, `Evict ${plan.text.split(", ").pop()}`, () => this.act("evict", targets));
  }

  confirm(question, label, act) {
    const close = () => {
      this.confirmBar.hidden = true;
      this.list.focus({ preventScroll: true });
    };
    const yes = button(label, () => { close(); act(); }, { class: "pc-button pc-danger" });
    this.confirmBar.replaceChildren(h("span", { class: "pc-line" }, question), yes, button("Cancel", close));
    this.confirmBar.onkeydown = (event) => { if (event.key === "Escape") close(); };
    this.confirmBar.hidden = false;
    yes.focus();
  }

  async act(op, words = {}) {
    const reply = await this.kernel.ask(op, words);
    this.say(reply.error || reply.text, Boolean(reply.error));
    if (reply.error) return;
    if (op !== "pin") {
      this.checked.clear();
      this.every = false;
    }
    this.undo.hidden = !reply.undo;
    clearTimeout(this.fading);
    if (reply.undo) this.fading = setTimeout(() => { this.undo.hidden = true; }, 1000 * reply.undo);
    await this.refresh();
    this.detail.check();
  }

  say(line, bad = false) {
    this.status.textContent = line || "";
    this.status.classList.toggle("pc-error", bad);
  }

  setBusy(busy) {
    this.busyMark.hidden = !busy;
    this.root.setAttribute("aria-busy", String(busy));
  }

  pushed(message) {
    if (message.push === "changed") this.refresh().then(() => this.detail.check());
    else if (message.push === "line") this.say(message.error || message.text, Boolean(message.error));
    else if (message.push === "statistics") this.detail.statistics(message);
  }
}

// What one entry holds ------------------------------------------------------------------------------

class Detail {
  constructor(panel) {
    this.panel = panel;
    this.key = "";
    this.root = h("div", { class: "pc-detail", hidden: true });
  }

  ask(op, words, kind) {
    return this.panel.kernel.ask(op, { key: this.key, file: this.output ? this.output.file : "", ...words }, kind);
  }

  async open(key, focus) {
    const same = this.key === key;
    this.key = key;
    this.output = null;
    const entry = await this.ask("entry");
    if (this.key !== key) return;
    if (entry.error) return void this.fail(entry.error);
    this.entry = entry;
    this.pick(entry.outputs[0] || null, same ? this.tab : undefined);
    if (focus) this.tabs.querySelector('[aria-selected="true"]').focus();
  }

  // An entry evicted under the view: say so and keep the panel alive.
  async check() {
    if (!this.key) return;
    const key = this.key;
    const reply = await this.ask("entry", {}, "check");
    if (this.key === key && reply.error) this.hide();
    else if (this.key === key) this.entry = reply;
  }

  hide() {
    this.key = "";
    this.root.hidden = true;
    this.root.replaceChildren();
    this.panel.paint();
  }

  fail(line) {
    this.hide();
    this.panel.say(line, true);
  }

  pick(output, tab) {
    this.output = output;
    this.view = { first: 0, column: 0, filter: "", sort: "", descending: false };
    this.at = [0, 0];
    const kinds = [
      output && output.frame ? ["rows", "Rows"] : output ? ["value", "Value"] : null,
      output && output.frame ? ["schema", "Schema"] : null,
      this.entry.pictures ? ["pictures", this.entry.pictures > 1 ? `Figures (${this.entry.pictures})` : "Figure"] : null,
      ["provenance", "Provenance"], ["files", "Files"],
    ].filter(Boolean);
    this.tabs = h("div", { class: "pc-tabs", role: "tablist", onkeydown: (event) => this.tabKey(event) },
      ...kinds.map(([kind, label]) => button(label, () => this.select(kind), { class: "pc-tab", role: "tab", "data-tab": kind })));
    this.body = h("div", { class: "pc-body", role: "tabpanel" });
    this.bar = h("div", { class: "pc-confirm", hidden: true });
    this.root.replaceChildren(this.head(), this.bar, this.body);
    this.root.hidden = false;
    this.panel.paint();
    this.select(kinds.some(([kind]) => kind === tab) ? tab : kinds[0][0]);
  }

  head() {
    const outputs = this.entry.outputs;
    const choice = outputs.length > 1
      ? h("select", { class: "pc-input", "aria-label": "Output", onchange: (e) => this.pick(outputs[e.target.selectedIndex], this.tab) },
        ...outputs.map((o) => h("option", { selected: o === this.output }, `${o.name} — ${o.kind}, ${o.size}`)))
      : h("span", { class: "pc-dim" }, outputs.length ? `${this.output.kind}, ${this.output.size}` : "no outputs");
    const tools = this.output ? [button("Load…", () => this.load()),
      ...(this.output.frame ? [button("Export…", () => this.export())] : [])] : [];
    return h("div", { class: "pc-detail-head" }, h("span", { class: "pc-name-big", title: this.entry.name }, this.entry.name),
      choice, this.tabs, h("span", { class: "pc-gap" }), ...tools,
      button("×", () => this.hide(), { "aria-label": "Close the preview", title: "Close", class: "pc-button pc-close" }));
  }

  tabKey(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const all = [...this.tabs.children];
    if (!step) return;
    const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    next.click();
    next.focus();
  }

  select(tab) {
    this.tab = tab;
    for (const node of this.tabs.children) {
      const on = node.dataset.tab === tab;
      node.setAttribute("aria-selected", String(on));
      node.tabIndex = on ? 0 : -1;
    }
    this.body.setAttribute("aria-label", tab);
    this.grid = null;
    if (tab === "rows") this.rows();
    else this[tab]();
  }

  // A reply for a tab that was left meanwhile is of no use.
  async fetch(tab, op, words) {
    const { output, key } = this;
    const reply = await this.ask(op, words);
    if (this.tab !== tab || this.output !== output || this.key !== key) return null;
    if (reply.error) {
      this.body.replaceChildren(h("div", { class: "pc-note pc-error" }, reply.error));
      return null;
    }
    return reply;
  }

  // Rows ---------------------------------------------------------------------------------------------

  rows() {
    const icon = (label, name, act) => button(label, act, { class: "pc-button pc-icon", "aria-label": name, title: name });
    this.range = h("span", { class: "pc-range" });
    this.window = h("span", { class: "pc-range" });
    this.columnBar = h("span", { class: "pc-group" }, icon("‹", "Columns before", () => this.turn({ column: this.view.column - this.width() })),
      this.window, icon("›", "Columns after", () => this.turn({ column: this.view.column + this.width() })));
    this.goto = h("input", {
      class: "pc-input pc-goto", inputmode: "numeric", placeholder: "row", "aria-label": "Go to row",
      onkeydown: (event) => { if (event.key === "Enter") this.go(); },
    });
    this.filter = h("input", {
      class: "pc-input pc-filter", placeholder: "filter: price > 130 and name contains a", "aria-label": "Filter rows", spellcheck: "false",
      title: "Columns and values joined by and: = != < <= > >= contains startswith endswith in (a, b) is null, is not null",
      onkeydown: (event) => {
        if (event.key === "Enter") this.turn({ filter: this.filter.value, first: 0 });
        if (event.key === "Escape" && this.view.filter) this.filter.value = "", this.turn({ filter: "", first: 0 });
      },
      onsearch: () => this.turn({ filter: this.filter.value, first: 0 }), type: "search",
    });
    this.note = h("div", { class: "pc-note", role: "status", hidden: true });
    this.full = h("pre", { class: "pc-full", hidden: true, tabindex: 0 });
    this.table = h("table", { class: "pc-table", role: "grid", tabindex: 0, "aria-label": "Rows", onkeydown: (event) => this.cellKey(event) });
    this.body.replaceChildren(
      h("div", { class: "pc-pager" }, h("span", { class: "pc-group" },
        icon("«", "First page", () => this.turn({ first: 0 })), icon("‹", "Page before", () => this.turn({ first: this.view.first - PAGE })),
        this.range,
        icon("›", "Page after", () => this.turn({ first: this.view.first + PAGE })), icon("»", "Last page", () => this.turn({ first: Infinity }))),
      h("label", { class: "pc-group" }, "go to", this.goto), this.filter, this.columnBar),
      this.note, h("div", { class: "pc-scroll" }, this.table), this.full);
    this.turn({});
  }

  width() {
    return Math.max(4, Math.min(24, Math.floor((this.panel.root.clientWidth || 900) / 92)));
  }

  go() {
    const row = Number(this.goto.value.replace(/[,_\s]/g, ""));
    if (!Number.isInteger(row) || row < 1) return this.tell(`“${this.goto.value}” is no row; rows are numbered from 1`);
    return this.turn({ first: row - 1 });
  }

  tell(line) {
    this.note.hidden = !line;
    this.note.textContent = line || "";
    this.note.classList.add("pc-error");
  }

  async turn(change) {
    const view = { ...this.view, ...change };
    const last = this.page ? Math.max(0, Math.floor((this.page.total - 1) / PAGE) * PAGE) : 0;
    view.first = view.first === Infinity ? last : Math.max(0, view.first);
    view.column = Math.max(0, Math.min(view.column, Math.max(0, (this.page ? this.page.all : Infinity) - 1)));
    if (!change.filter && change.filter !== "" && "first" in change && this.page && this.page.total && view.first === this.view.first + PAGE && view.first >= this.page.total) return;
    const { output } = this;
    const page = await this.ask("page", { ...view, count: PAGE, columns: this.width() });
    if (this.tab !== "rows" || this.output !== output) return;
    if (page.error) return void this.tell(page.error); // the page that was shown stays
    this.view = view;
    this.page = page;
    this.paint();
  }

  paint() {
    const { page, view } = this;
    const last = page.first + page.rows.length;
    this.range.textContent = page.rows.length ? `rows ${number(page.first + 1)}–${number(last)} of ${number(page.total)}` : "no rows";
    this.window.textContent = `columns ${number(view.column + 1)}–${number(view.column + page.columns.length)} of ${number(page.all)}`;
    this.columnBar.hidden = page.columns.length === page.all;
    this.tell(page.note);
    this.note.classList.remove("pc-error");
    this.full.hidden = true;
    this.table.setAttribute("aria-rowcount", page.total + 1);
    this.table.setAttribute("aria-colcount", page.all + 1);
    const head = page.columns.map(([name, dtype, numeric]) => h("th", {
      scope: "col", role: "columnheader", class: numeric ? "pc-number" : "",
      "aria-sort": view.sort !== name ? "none" : view.descending ? "descending" : "ascending",
    }, h("button", { type: "button", tabindex: -1, class: "pc-sort", title: `${name}: ${dtype}. Click to sort.`, onclick: () => this.sortBy(name) },
      h("span", { class: "pc-column" }, name), h("span", { class: "pc-dtype" }, dtype))));
    const rows = page.rows.map((row, r) => h("tr", { role: "row", "aria-rowindex": page.first + r + 2 },
      h("th", { scope: "row", role: "rowheader", class: "pc-index" }, number(page.numbers[r] + 1)),
      ...row.map((value, c) => this.cell(value, page.columns[c][2], r, c))));
    this.table.replaceChildren(h("thead", {}, h("tr", { role: "row" }, h("th", { class: "pc-index", role: "columnheader" }, "#"), ...head)), h("tbody", {}, ...rows));
    this.at = [Math.max(0, Math.min(this.at[0], page.rows.length - 1)), Math.max(0, Math.min(this.at[1], page.columns.length - 1))];
    this.mark(false);
  }

  cell(value, numeric, r, c) {
    const missing = value === null || (numeric && value === "NaN");
    return h("td", {
      role: "gridcell", class: `${numeric ? "pc-number" : ""}${missing ? " pc-null" : ""}`, title: value && value.length > 24 ? value : null,
      onclick: () => { this.at = [r, c]; this.mark(true); }, ondblclick: () => this.whole(),
    }, value === null ? "null" : value);
  }

  sortBy(name) {
    const { sort, descending } = this.view;
    const next = sort !== name ? { sort: name, descending: false } : descending ? { sort: "", descending: false } : { descending: true };
    this.turn({ ...next, first: 0 });
  }

  mark(scroll) {
    for (const node of this.table.querySelectorAll(".pc-active")) node.classList.remove("pc-active");
    const row = this.table.tBodies[0].rows[this.at[0]];
    const cell = row && row.cells[this.at[1] + 1];
    if (!cell) return;
    cell.classList.add("pc-active");
    cell.id = `${this.panel.id}-cell`;
    for (const other of this.table.querySelectorAll(`#${CSS.escape(cell.id)}`)) if (other !== cell) other.removeAttribute("id");
    this.table.setAttribute("aria-activedescendant", cell.id);
    if (scroll) cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  async cellKey(event) {
    const { page, at, view } = this;
    if (!page || event.target !== this.table) return;
    const lastRow = page.rows.length - 1;
    const lastColumn = page.columns.length - 1;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const { key } = event;
    event.preventDefault();
    if (key in moves) {
      const [r, c] = [at[0] + moves[key][0], at[1] + moves[key][1]];
      if (r < 0 && page.first > 0) this.at[0] = PAGE - 1, await this.turn({ first: view.first - PAGE });
      else if (r > lastRow && page.first + page.rows.length < page.total) this.at[0] = 0, await this.turn({ first: view.first + PAGE });
      else if (c > lastColumn && view.column + c < page.all) this.at[1] = 0, await this.turn({ column: view.column + c });
      else if (c < 0 && view.column > 0) await this.turn({ column: view.column - this.width() });
      else this.at = [Math.max(0, Math.min(r, lastRow)), Math.max(0, Math.min(c, lastColumn))];
    } else if (key === "PageDown") await this.turn({ first: view.first + PAGE });
    else if (key === "PageUp") await this.turn({ first: view.first - PAGE });
    else if (key === "Home" && event.ctrlKey) await this.turn({ first: 0 });
    else if (key === "End" && event.ctrlKey) await this.turn({ first: Infinity });
    else if (key === "Home") this.at[1] = 0;
    else if (key === "End") this.at[1] = lastColumn;
    else if (key === "Enter") return void this.whole();
    else if (key === "/") return void this.filter.focus();
    else if (key === "Tab") return void this.leave(event);
    else if (key === "Escape") return void this.panel.list.focus();
    this.mark(true);
  }

  leave(event) {
    const all = [...this.panel.root.querySelectorAll("button,input,select,[tabindex='0']")].filter((n) => n.tabIndex >= 0 && n.offsetParent);
    const next = all[all.indexOf(this.table) + (event.shiftKey ? -1 : 1)];
    if (next) next.focus();
  }

  async whole() {
    const [r, c] = this.at;
    const reply = await this.ask("cell", { row: this.page.numbers[r], column: this.view.column + c });
    this.full.hidden = false;
    this.full.textContent = reply.error || (reply.text === null ? "null (missing)" : reply.text);
    this.full.scrollIntoView({ block: "nearest" });
  }

  // Schema -------------------------------------------------------------------------------------------

  async schema(first = 0) {
    const asked = this.wanted === this.output;
    const reply = await this.fetch("schema", "schema", { first, statistics: asked });
    if (!reply) return;
    if (!asked && reply.rows <= 5e6) {
      this.wanted = this.output;
      return void this.schema(first);
    }
    this.stats = new Map();
    const rows = reply.columns.map(([at, name, dtype, nulls], i) => {
      const cells = Array.from({ length: 5 }, () => h("td", {}));
      this.stats.set(at, { cells, nulls, rows: reply.rows });
      const node = h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "pc-dtype" }, dtype), ...cells);
      this.describe(at, reply.statistics[i]);
      return node;
    });
    const more = reply.all > reply.columns.length ? h("div", { class: "pc-pager" },
      button("‹", () => this.schema(Math.max(0, first - 100)), { "aria-label": "Columns before" }),
      `columns ${number(first + 1)}–${number(first + reply.columns.length)} of ${number(reply.all)}`,
      button("›", () => this.schema(Math.min(first + 100, reply.all - 1)), { "aria-label": "Columns after" })) : null;
    const work = asked ? null : h("div", { class: "pc-pager" }, `${number(reply.rows)} rows.`,
      button("Work out statistics", () => { this.wanted = this.output; this.schema(first); }));
    this.body.replaceChildren(...[work, more].filter(Boolean), h("div", { class: "pc-scroll" }, h("table", { class: "pc-table pc-schema" },
      h("thead", {}, h("tr", {}, ...["Column", "Type", "Missing", "Minimum", "Maximum", "Distinct", "Distribution"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, ...rows))));
  }

  describe(at, told) {
    const { cells, nulls, rows } = this.stats.get(at);
    const percent = (n) => (n === 0 ? "0" : `${number(n)} (${((100 * n) / rows).toFixed(n / rows < 0.1 ? 1 : 0)} %)`);
    if (!told) {
      cells[0].textContent = nulls === null ? "…" : percent(nulls);
      return;
    }
    cells[0].textContent = percent(told.missing);
    cells[1].textContent = told.minimum === null ? "" : told.minimum;
    cells[2].textContent = told.maximum === null ? "" : told.maximum;
    for (const cell of cells.slice(1, 3)) cell.title = cell.textContent;
    cells[3].textContent = told.distinct === null ? "" : `${told.exact ? "" : "≈ "}${number(told.distinct)}`;
    cells[4].replaceChildren(...(told.histogram.length ? [bars(told)] : []));
  }

  statistics(message) {
    if (this.tab === "schema" && this.key === message.key && this.output.file === message.file && this.stats && this.stats.has(message.column)) {
      this.describe(message.column, message.statistics);
    }
  }

  // Value, figures, provenance, files ----------------------------------------------------------------

  async value() {
    const reply = await this.fetch("value", "value");
    if (!reply) return;
    this.body.replaceChildren(...[
      reply.facts.length ? h("div", { class: "pc-facts" }, ...reply.facts.map(([k, v]) => h("span", {}, h("b", {}, k), ` ${v}`))) : null,
      reply.corner && reply.corner.length ? h("div", { class: "pc-scroll" }, h("table", { class: "pc-table" },
        h("tbody", {}, ...reply.corner.map((line) => h("tr", {}, ...line.map((v) => h("td", { class: "pc-number" }, v))))))) : null,
      h("pre", { class: "pc-code" }, reply.repr || "no description was stored"),
    ].filter(Boolean));
  }

  async pictures(at = 0) {
    const reply = await this.fetch("pictures", "picture", { number: at });
    if (!reply) return;
    const turn = this.entry.pictures > 1 ? h("div", { class: "pc-pager" },
      button("‹", () => this.pictures(Math.max(0, at - 1)), { "aria-label": "Figure before" }), `figure ${at + 1} of ${this.entry.pictures}`,
      button("›", () => this.pictures(Math.min(this.entry.pictures - 1, at + 1)), { "aria-label": "Figure after" })) : null;
    this.body.replaceChildren(...[turn, h("img", { class: "pc-picture", alt: "What the cell showed", src: `data:${reply.kind};base64,${reply.data}` })].filter(Boolean));
  }

  async provenance() {
    const reply = await this.fetch("provenance", "provenance");
    if (!reply) return;
    const table = (title, lines) => (lines.length ? [h("h4", {}, title), h("table", { class: "pc-table pc-plain" },
      h("tbody", {}, ...lines.map((line) => h("tr", {}, ...line.map((v, i) => h(i ? "td" : "th", {}, v))))))] : []);
    const { url, ...run } = reply.prefect;
    const link = /^https?:\/\//.test(url || "") ? [h("p", {}, h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, "Open the run in Prefect"))] : [];
    this.body.replaceChildren(h("div", { class: "pc-columns" },
      h("div", {}, h("pre", { class: "pc-code" }, ...reply.source.map(([kind, text]) => h("span", { class: kind ? `pc-${kind}` : null }, text)))),
      h("div", {}, ...table("Run", reply.facts), ...link, ...table("Inputs", reply.inputs), ...table("Looked at while it ran", reply.observed),
        ...table("Prefect", Object.entries(run)), ...table("Also depends on", reply.parts))));
  }

  async files() {
    const reply = await this.fetch("files", "files");
    if (!reply) return;
    const result = h("span", { class: "pc-line", role: "status" });
    const check = button("Check every byte", async () => {
      result.textContent = "reading…";
      const told = await this.ask("check");
      result.textContent = told.error || told.what;
      result.classList.toggle("pc-error", Boolean(told.error) || !told.good);
    });
    this.body.replaceChildren(h("div", { class: "pc-pager" }, h("span", { class: "pc-where" }, reply.folder), check, result),
      ...reply.files.map((file) => this.file(file)));
  }

  file(file) {
    const kinds = Object.keys(file.snippets);
    const code = h("pre", { class: "pc-code" });
    const pick = (kind) => {
      code.textContent = file.snippets[kind];
      for (const node of choice.children) node.setAttribute("aria-pressed", String(node.dataset.kind === kind));
    };
    const choice = h("span", { class: "pc-group" }, ...kinds.map((kind) => button(kind, () => pick(kind), { class: "pc-chip", "data-kind": kind, "aria-pressed": "false" })));
    const copy = button("Copy", () => this.copy(code));
    if (kinds.length) pick(kinds[0]);
    return h("div", { class: "pc-file" }, h("div", { class: "pc-facts" }, h("b", {}, file.name), h("span", {}, file.file), h("span", {}, file.size),
      h("span", {}, file.format), h("span", { class: "pc-dim", title: "xxh3 tree digest" }, file.digest)),
    ...(kinds.length ? [h("div", { class: "pc-pager" }, choice, copy), code] : []));
  }

  async copy(node) {
    try {
      await navigator.clipboard.writeText(node.textContent);
      this.panel.say("Copied.");
    } catch { // no right to the clipboard: leave it selected for Ctrl+C
      getSelection().selectAllChildren(node);
      this.panel.say("Selected; press Ctrl+C to copy.");
    }
  }

  // Load and export ----------------------------------------------------------------------------------

  load() {
    const name = h("input", { class: "pc-input", value: this.output.name, "aria-label": "Variable", spellcheck: "false" });
    const go = async (overwrite) => {
      const reply = await this.ask("load", { variable: name.value, overwrite });
      if (reply.exists) {
        const yes = button(`Replace ${reply.exists}`, () => go(true), { class: "pc-button pc-danger" });
        this.form([`${reply.exists} exists already (${reply.what}).`, yes]);
        yes.focus();
      } else {
        if (!reply.error) this.bar.hidden = true;
        this.panel.say(reply.error || reply.text, Boolean(reply.error));
      }
    };
    name.addEventListener("keydown", (event) => { if (event.key === "Enter") go(false); });
    this.form(["Load into the variable", name, button("Load", () => go(false))]);
    name.select();
  }

  export() {
    const write = async (format) => {
      this.bar.hidden = true;
      const reply = await this.ask("export", { format });
      this.panel.say(reply.error || reply.text, Boolean(reply.error));
    };
    const parquet = button("Parquet", () => write("parquet"));
    this.form(["Write to the working folder as", parquet, button("CSV", () => write("csv"))]);
    parquet.focus();
  }

  form(parts) {
    const close = () => { this.bar.hidden = true; };
    this.bar.replaceChildren(...parts, button("Cancel", close));
    this.bar.onkeydown = (event) => { if (event.key === "Escape") close(); };
    this.bar.hidden = false;
  }
}

function bars({ histogram, labels }) {
  const NS = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(NS, "svg");
  const most = Math.max(...histogram, 1);
  const all = histogram.reduce((a, b) => a + b, 0) || 1;
  svg.setAttribute("class", "pc-bars");
  svg.setAttribute("viewBox", `0 0 ${histogram.length * 4} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const words = labels.map((label, i) => `${label}: ${((100 * histogram[i]) / all).toFixed(0)} %`).join("\n");
  svg.setAttribute("aria-label", words || "histogram");
  histogram.forEach((n, i) => {
    const bar = document.createElementNS(NS, "rect");
    const height = n ? Math.max(1, (20 * n) / most) : 0;
    for (const [name, value] of Object.entries({ x: i * 4, y: 20 - height, width: 3.4, height })) bar.setAttribute(name, value);
    svg.append(bar);
  });
  if (words) svg.append(Object.assign(document.createElementNS(NS, "title"), { textContent: words }));
  return svg;
}

export default {
  render({ model, el }) {
    const panel = new Panel(model, el);
    return () => panel.close();
  },
};
