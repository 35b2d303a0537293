// The page's side of the panel: it shows what the kernel answers, as text. Nothing here parses HTML.

const ROW = 28; // pixels of a row of the list, as in panel.css
const SHOWN = 10; // rows of the list that are seen at once
const POOL = SHOWN + 12; // rows that exist; scrolling moves and refills them
const AHEAD = 60; // rows that are asked for at once
const PAGE = 50;
const HEADS = ["name", "rows", "columns", "size", "created", "used", "hits", "saved", "notebook"];
const FLAGS = { pinned: "Pinned", stale: "Expired", damaged: "Damaged", notebook: "This notebook", results: "Prefect results" };
const WORDS = ["size>1GB", "unused>7d"];
const ARIA = /^(label|sort|pressed|selected|rowindex|rowcount|colcount|activedescendant|valuenow|valuetext|busy|live)$/;

// h("div.row", { label: "for ARIA", onclick: act }, "text", child, null) makes an element.
function h(what, ...rest) {
	const [tag, ...names] = what.split(".");
	const node = document.createElement(tag);
	if (names.length) node.className = names.map((name) => "pc-" + name).join(" ");
	if (rest[0] && Object.getPrototypeOf(rest[0]) === Object.prototype) set(node, rest.shift());
	node.append(...rest.filter(Boolean));
	return node;
}

function set(node, attributes) {
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else if (value != null) node.setAttribute(ARIA.test(name) ? "aria-" + name : name, value);
	}
}

const button = (label, onclick, more, kind = "button") => h("button." + kind, { type: "button", onclick, ...more }, label);
const icon = (sign, title, act) => button(sign, act, { title, label: title }, "button.icon");
const number = (n) => n.toLocaleString("en-US");
const clamp = (n, high) => Math.max(0, Math.min(n, high));
const span = (first, count, all) => `${number(first + 1)}-${number(first + count)} of ${number(all)}`;
const some = (n) => `${number(n)} ${n === 1 ? "entry" : "entries"}`;
const order = (on, descending) => (on ? (descending ? "descending" : "ascending") : "none");
const mark = (node, name, on) => node.classList.toggle("pc-" + name, Boolean(on));

function say(node, line, bad) {
	node.textContent = line || "";
	mark(node, "error", bad);
}

// Replies find their question by its number; where a newer one of its kind was asked, the older reply is dropped.
class Kernel {
	constructor(model, pushed, busy) {
		Object.assign(this, { model, pushed, busy, count: Math.floor(Math.random() * 2 ** 48), waiting: new Map(), newest: new Map() });
		this.name = "pc-" + Math.random().toString(36).slice(2);
		this.hear = (message) => this.heard(message);
		model.on("msg:custom", this.hear);
		model.send({ op: "hello", id: this.name });
	}

	ask(op, words, kind = op) {
		const id = ++this.count;
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
		if (!asked) return; // it was another view that asked
		this.waiting.delete(message.id);
		if (!this.waiting.size) this.busy(false);
		if (this.newest.get(asked.kind) === message.id) asked.resolve(message);
	}

	close() {
		clearTimeout(this.timer);
		this.model.off("msg:custom", this.hear);
		this.model.send({ op: "bye", id: this.name });
	}
}

// A bar that asks something: the parts that it is given, and Cancel.
function ask(bar, parts, after) {
	const close = () => {
		bar.hidden = true;
		if (after) after();
	};
	bar.replaceChildren(...parts, button("Cancel", close));
	bar.onkeydown = (e) => e.key === "Escape" && close();
	bar.hidden = false;
	bar.querySelector("input,button").focus();
	return close;
}

class Panel {
	constructor(model, el) {
		this.kernel = new Kernel(model, (message) => this.pushed(message), (busy) => this.setBusy(busy));
		Object.assign(this, { rows: new Map(), checked: new Set(), every: false, total: 0, active: 0 });
		this.query = { search: "", flags: [], sort: "used", descending: true };
		this.status = h("span.line", { role: "status", live: "polite" });
		this.undo = button("Undo", () => this.act("undo"));
		this.busyMark = h("span.busy", "kernel busy…");
		this.bar = h("div.confirm.bar");
		this.undo.hidden = this.busyMark.hidden = this.bar.hidden = true;
		this.detail = new Detail(this);
		this.root = h("div", { class: "pc", role: "region", label: "Prefect cache" }, this.header(), this.toolbar(), this.grid(),
			this.actions(), this.bar, this.detail.root, h("div.status.bar", this.status, this.undo, this.busyMark));
		// Keys typed here are not meant for the notebook; shortcuts with Ctrl or Cmd still are.
		this.root.addEventListener("keydown", (e) => e.ctrlKey || e.metaKey || e.altKey || e.stopPropagation());
		el.append(this.root);
		const first = JSON.parse(model.get("first"));
		this.show(first);
		if (!(Date.now() / 1000 - first.time < 10)) this.refresh(); // a page that was loaded again
	}

	close() {
		[this.typing, this.fetching, this.fading].forEach(clearTimeout);
		this.kernel.close();
	}

	header() {
		this.count = h("span.count");
		this.fill = h("span.fill");
		this.meter = h("span.meter", { role: "meter", label: "Size of the store" }, this.fill);
		this.usage = h("span.usage");
		this.where = h("span.where");
		return h("div.header.bar", h("span.title", "Prefect cache"), this.count, this.where, this.meter, this.usage);
	}

	toolbar() {
		const retype = (text) => this.ask({ search: (this.search.value = text) });
		this.search = h("input.input.search", {
			type: "search", placeholder: "Search name, column, notebook", label: "Search the cache", spellcheck: "false",
			title: "Also size>1GB, unused>7d, rows>1000, hits<1",
			oninput: () => {
				clearTimeout(this.typing);
				this.typing = setTimeout(() => this.ask({ search: this.search.value }), 120);
			},
			onkeydown: (e) => {
				if (e.key === "Escape") retype("");
				if (e.key === "ArrowDown") this.list.focus();
			},
		});
		const toggle = (list, item) => (list.includes(item) ? list.filter((i) => i !== item) : [...list, item]);
		const words = () => this.search.value.split(/\s+/).filter(Boolean);
		const chip = (label, act, on) => Object.assign(button(label, act, {}, "chip"), { on });
		this.chips = [
			...Object.entries(FLAGS).map(([flag, label]) =>
				chip(label, () => this.ask({ flags: toggle(this.query.flags, flag) }), () => this.query.flags.includes(flag))),
			...WORDS.map((word) =>
				chip(word.replace(">", " > "), () => retype(toggle(words(), word).join(" ")), () => words().includes(word))),
		];
		return h("div.bar", { role: "search" }, this.search, ...this.chips, h("span.gap"),
			button("Refresh", () => this.refresh("Up to date."), { title: "Read the store again" }));
	}

	grid() {
		this.all = h("input", { type: "checkbox", label: "Choose all that are listed", tabindex: -1, onclick: () => this.checkAll() });
		this.heads = HEADS.map((sort) => h("span.cell." + sort, { role: "columnheader" },
			button(sort === "columns" ? "Cols" : sort[0].toUpperCase() + sort.slice(1), () => this.sort(sort), { tabindex: -1 }, "sort")));
		this.pool = Array.from({ length: POOL }, () => this.poolRow());
		this.space = h("div.space", { role: "rowgroup" }, ...this.pool.map((row) => row.node));
		this.empty = h("div.empty");
		this.list = h("div.list", {
			role: "grid", tabindex: 0, label: "Cached entries", colcount: HEADS.length + 1, "aria-multiselectable": true,
			onkeydown: (e) => this.key(e), onscroll: () => this.paint(),
		}, h("div.row.head", { role: "row", rowindex: 1 }, h("span.check", { role: "columnheader" }, this.all), ...this.heads), this.space, this.empty);
		return this.list;
	}

	poolRow() {
		const check = h("input", { type: "checkbox", tabindex: -1, label: "Choose this entry" });
		const cells = HEADS.map((sort) => h("span.cell." + sort, { role: "gridcell" }));
		const node = h("div.row", { role: "row" }, h("span.check", { role: "gridcell" }, check), ...cells);
		const row = { node, check, cells, at: -1 };
		node.addEventListener("click", (e) => {
			this.move(row.at);
			if (e.target === check) this.check(row.at);
			else this.open(row.at);
		});
		return row;
	}

	show(reply) {
		if (reply.error) return (this.failed = this.told(reply));
		if (this.failed) this.failed = this.say("");
		this.total = reply.total;
		reply.rows.forEach((row, i) => this.rows.set(reply.first + i, row));
		this.count.textContent = (reply.total === reply.all ? "" : `${number(reply.total)} of `) + some(reply.all);
		this.usage.textContent = reply.usage;
		this.where.textContent = this.where.title = reply.where;
		this.fill.style.width = `${Math.min(100, 100 * reply.full)}%`;
		mark(this.fill, "tight", reply.full > 0.9);
		set(this.meter, { valuenow: Math.round(100 * reply.full), valuetext: reply.usage });
		set(this.list, { rowcount: reply.total + 1 });
		this.space.style.height = `${reply.total * ROW}px`;
		this.empty.hidden = reply.total > 0;
		this.empty.textContent = reply.all ? "Nothing matches: clear the search or a filter."
			: "Nothing is cached yet. Put %%prefect_cache at the top of a cell and run it.";
		this.active = clamp(this.active, reply.total - 1);
		this.marks();
		this.paint();
	}

	marks() {
		const { sort, descending } = this.query;
		this.heads.forEach((node, i) => set(node, { sort: order(HEADS[i] === sort, descending) }));
		for (const chip of this.chips) set(chip, { pressed: chip.on() });
	}

	paint() {
		const first = clamp(Math.floor(this.list.scrollTop / ROW) - 4, this.total - POOL);
		let missing = -1;
		for (let at = first; at < first + POOL; at++) {
			const data = this.rows.get(at);
			if (!data && at < this.total && missing < 0) missing = at;
			this.fillRow(this.pool[at % POOL], at, data);
		}
		this.all.checked = this.every;
		set(this.list, { activedescendant: this.total ? this.pool[this.active % POOL].node.id : "" });
		this.paintActions();
		if (missing < 0) return;
		clearTimeout(this.fetching);
		this.fetching = setTimeout(async () => this.show(await this.kernel.ask("list", { ...this.query, first: missing, count: AHEAD })), 30);
	}

	fillRow(row, at, data) {
		const { node, cells, check } = row;
		row.at = at;
		node.hidden = at >= this.total;
		node.id = `${this.kernel.name}-row-${at}`;
		node.style.transform = `translateY(${at * ROW}px)`;
		check.checked = data && (this.every || this.checked.has(data[0]));
		set(node, { rowindex: at + 2, selected: check.checked });
		mark(node, "active", at === this.active);
		mark(node, "open", data && data[0] === this.detail.key);
		const [, name, dim, marks, , size, rows, columns, ...rest] = data || Array(13).fill("");
		const damaged = marks === "!";
		mark(node, "bad", damaged);
		[rows, columns, size, ...rest].forEach((text, i) => (cells[i + 1].textContent = text));
		cells[0].replaceChildren(...h("i", damaged && h("span.badge.warn", "damaged"),
			marks.includes("p") && h("span.pin", { role: "img", label: "pinned", title: "Pinned: retention leaves it alone" }, "★"),
			h("span.label", { title: name }, name), dim && h("span.dim", { title: dim }, dim),
			marks.includes("x") && h("span.badge", { title: "Its time to live has ended: the cell will run again" }, "expired")).childNodes);
	}

	// Another search, filter or order; the old list stays until the answer is here.
	async ask(change) {
		Object.assign(this.query, change);
		this.every = false;
		this.marks();
		clearTimeout(this.typing);
		clearTimeout(this.fetching);
		const reply = await this.kernel.ask("list", { ...this.query, first: 0, count: AHEAD });
		if (!reply.error) {
			this.rows.clear();
			this.active = this.list.scrollTop = 0;
		}
		this.show(reply);
	}

	async refresh(line) {
		const first = Math.max(0, Math.floor(this.list.scrollTop / ROW) - 10);
		const reply = await this.kernel.ask("list", { ...this.query, first, count: AHEAD, fresh: true });
		if (!reply.error) this.rows.clear();
		this.show(reply);
		if (!reply.error && line) this.say(line);
	}

	sort(sort) {
		this.ask({ sort, descending: this.query.sort === sort ? !this.query.descending : !/^n/.test(sort) }); // names from A to Z
	}

	check(at) {
		const data = this.rows.get(at);
		if (!data) return;
		if (this.every) this.checked.clear();
		this.every = false;
		if (!this.checked.delete(data[0])) this.checked.add(data[0]);
		this.paint();
	}

	checkAll(every = !this.every) {
		this.every = every;
		this.checked.clear();
		this.paint();
	}

	move(at) {
		this.active = clamp(at, this.total - 1);
		const top = this.active * ROW;
		const seen = this.list.clientHeight - ROW; // the head covers one row
		this.list.scrollTop = Math.min(top, Math.max(this.list.scrollTop, top + ROW - seen));
		this.paint();
	}

	key(e) {
		if (e.target !== this.list) return;
		const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: SHOWN, PageUp: -SHOWN, Home: -Infinity, End: Infinity };
		const acts = {
			" ": () => this.check(this.active), Enter: () => this.open(this.active, true), Delete: () => this.evict(),
			"/": () => this.search.focus(), p: () => this.pin(), Escape: () => this.detail.hide(),
		};
		const { key, ctrlKey, metaKey } = e;
		if (key in steps) {
			if (e.shiftKey) this.check(this.active);
			this.move(this.active + steps[key]);
		} else if (key === "a" && (ctrlKey || metaKey)) this.checkAll(true);
		else if (key in acts && !ctrlKey && !metaKey) acts[key]();
		else return;
		e.preventDefault();
		e.stopPropagation();
	}

	open(at, focus) {
		if (this.rows.has(at)) this.detail.open(this.rows.get(at)[0], focus);
	}

	actions() {
		this.chosen = h("span.label");
		this.pinButton = button("Pin", () => this.pin());
		this.actionBar = h("div.actions.bar", { role: "toolbar", label: "For the chosen entries" },
			this.chosen, this.pinButton, button("Evict…", () => this.evict(), {}, "button.danger"), button("Clear", () => this.checkAll(false)));
		return this.actionBar;
	}

	paintActions() {
		const count = this.every ? this.total : this.checked.size;
		this.actionBar.hidden = !count;
		this.chosen.textContent = `${number(count)} chosen`;
		this.pinButton.textContent = this.pinned() ? "Unpin" : "Pin";
	}

	// What an action is for: all listed, else what is checked, else the row with the cursor.
	targets() {
		if (this.every) return { ...this.query, every: true };
		if (this.checked.size) return { keys: [...this.checked] };
		const data = this.rows.get(this.active);
		return { keys: data ? [data[0]] : [] };
	}

	pinned() {
		const { every, keys } = this.targets();
		const rows = [...this.rows.values()].filter((row) => every || keys.includes(row[0]));
		return rows.length > 0 && rows.every((row) => row[3].includes("p"));
	}

	pin() {
		this.act("pin", { ...this.targets(), on: !this.pinned() });
	}

	async evict() {
		const targets = this.targets();
		const plan = await this.kernel.ask("plan", targets);
		if (plan.error) return this.told(plan);
		const yes = button(`Evict ${plan.size}`, () => {
			close();
			this.act("evict", targets);
		}, {}, "button.danger");
		const close = ask(this.bar, [h("span.line", plan.text), yes], () => this.list.focus({ preventScroll: true }));
	}

	async act(op, words) {
		const reply = await this.kernel.ask(op, words);
		if (this.told(reply)) return;
		if (op !== "pin") this.checkAll(false);
		this.undo.hidden = !reply.undo;
		clearTimeout(this.fading);
		if (reply.undo) this.fading = setTimeout(() => (this.undo.hidden = true), 1000 * reply.undo);
		await this.refresh();
		this.detail.check();
	}

	say(line, bad) {
		say(this.status, line, bad);
	}

	told(reply) {
		this.say(reply.error || reply.text, reply.error);
		return reply.error;
	}

	setBusy(busy) {
		this.busyMark.hidden = !busy;
		set(this.root, { busy });
	}

	pushed(message) {
		if (message.push === "changed") this.refresh().then(() => this.detail.check());
		else if (message.push === "line") this.told(message);
		else this.detail.statistics(message);
	}
}

// What one entry holds.
class Detail {
	constructor(panel) {
		Object.assign(this, { panel, key: "", told: new Map(), root: h("div.detail") });
		this.root.hidden = true;
	}

	ask(op, words, kind) {
		return this.panel.kernel.ask(op, { key: this.key, file: this.output ? this.output.file : "", ...words }, kind);
	}

	async open(key, focus) {
		const tab = this.key === key ? this.tab : "";
		this.key = key;
		this.output = null;
		this.panel.paint();
		const entry = await this.ask("entry");
		if (entry.error) {
			this.hide();
			return this.panel.told(entry);
		}
		this.entry = entry;
		this.pick(entry.outputs[0], tab);
		if (focus) this.tabs.querySelector("[tabindex='0']").focus();
	}

	// An entry that was evicted under the view closes it.
	async check() {
		if (this.key && (await this.ask("entry", {}, "check")).error) this.hide();
	}

	hide() {
		this.key = "";
		this.root.hidden = true;
		this.panel.paint();
	}

	pick(output, tab) {
		this.output = output;
		this.page = null;
		this.view = { first: 0, column: 0, filter: "", sort: "", descending: false };
		this.at = [0, 0];
		const { pictures, outputs, name } = this.entry;
		const own = !this.key.startsWith("result:"); // what Prefect stored can be looked at and evicted, no more
		const tabs = [!output ? [] : output.frame ? ["rows", "schema"] : "value", pictures ? "figures" : [], "provenance", "files"].flat();
		this.tabs = h("div.tabs", { role: "tablist", onkeydown: (e) => this.tabKey(e) }, ...tabs.map((kind) =>
			button(kind[0].toUpperCase() + kind.slice(1), () => this.select(kind), { role: "tab", "data-tab": kind }, "tab")));
		const choice = outputs.length > 1
			? h("select.input", { label: "Output", onchange: (e) => this.pick(outputs[e.target.selectedIndex], this.tab) },
				...outputs.map((o) => h("option", `${o.name}: ${o.kind}, ${o.size}`)))
			: h("span.dim", output ? `${output.kind}, ${output.size}` : "no outputs");
		if (outputs.length > 1) choice.selectedIndex = outputs.indexOf(output);
		this.bar = h("div.confirm.bar");
		this.bar.hidden = true;
		this.body = h("div.body", { role: "tabpanel" });
		this.root.replaceChildren(h("div.detail-head.bar", h("span.name-big", { title: name }, name), choice, this.tabs, h("span.gap"),
			output && own && button("Load…", () => this.load()), output && own && output.frame && button("Export…", () => this.export()),
			button("×", () => this.hide(), { label: "Close the preview" }, "button.close")), this.bar, this.body);
		this.root.hidden = false;
		this.select(tabs.includes(tab) ? tab : tabs[0]);
	}

	tabKey({ key, target }) {
		const tab = { ArrowRight: target.nextSibling, ArrowLeft: target.previousSibling }[key];
		if (!tab) return;
		tab.click();
		tab.focus();
	}

	select(tab) {
		this.tab = tab;
		for (const node of this.tabs.children) set(node, { selected: node.dataset.tab === tab, tabindex: node.dataset.tab === tab ? 0 : -1 });
		set(this.body, { label: tab });
		if (tab === "rows") this.rows();
		else if (tab === "schema") this.schema();
		else this.document(tab);
	}

	async fetch(op, words) {
		const { output, key, tab } = this;
		const reply = await this.ask(op, words);
		if (this.tab !== tab || this.output !== output || this.key !== key) return null;
		if (reply.error) this.body.replaceChildren(h("div.note.error", reply.error));
		return reply.error ? null : reply;
	}

	rows() {
		const by = (name, amount) => () => this.turn({ [name]: this.view[name] + amount() });
		this.range = h("span.range");
		this.window = h("span.range");
		this.columnBar = h("span.group", icon("‹", "Columns before", by("column", () => -this.width())), this.window,
			icon("›", "Columns after", by("column", () => this.width())));
		this.goto = h("input.input.goto", { inputmode: "numeric", placeholder: "row", label: "Go to row", onkeydown: (e) => e.key === "Enter" && this.go() });
		const filter = (text) => this.turn({ filter: (this.filter.value = text), first: 0 });
		this.filter = h("input.input.filter", {
			placeholder: "filter: price > 130 and name contains a", label: "Filter rows", spellcheck: "false", value: this.view.filter,
			title: "= != < <= > >= contains startswith endswith in (a, b), is null, is not null; and",
			onkeydown: (e) => {
				if (e.key === "Enter") filter(this.filter.value);
				if (e.key === "Escape") filter("");
			},
		});
		this.note = h("div.note", { role: "status" });
		this.full = h("pre.full", { tabindex: 0 });
		this.table = h("table.table", { role: "grid", tabindex: 0, label: "Rows", onkeydown: (e) => this.cellKey(e) });
		this.note.hidden = this.full.hidden = true;
		this.body.replaceChildren(h("div.bar", h("span.group", icon("«", "First page", () => this.turn({ first: 0 })),
			icon("‹", "Page before", by("first", () => -PAGE)), this.range, icon("›", "Page after", by("first", () => PAGE)),
			icon("»", "Last page", () => this.turn({ first: Infinity }))), h("label.group", "go to", this.goto), this.filter, this.columnBar),
		this.note, h("div.scroll", this.table), this.full);
		this.turn({});
	}

	width() {
		return Math.max(4, Math.min(24, Math.floor((this.panel.root.clientWidth || 900) / 92)));
	}

	go(text = this.goto.value) {
		const row = Number(text.replace(/[,_\s]/g, ""));
		if (row >= 1) this.turn({ first: Math.floor(row) - 1 });
		else this.tell(`“${text}” is no row; rows are numbered from 1`, true);
	}

	tell(line, bad) {
		this.note.hidden = !line;
		say(this.note, line, bad);
	}

	// Another page, order or filter. Where it cannot be shown, a line says why and the page that was there stays.
	async turn(change) {
		const view = { ...this.view, ...change };
		const { total = 0, all = Infinity } = this.page || {};
		if (view.first === Infinity || (view.first === this.view.first + PAGE && view.first >= total)) view.first = Math.floor((total - 1) / PAGE) * PAGE;
		view.first = Math.max(0, view.first);
		view.column = clamp(view.column, all - 1);
		const { output } = this;
		const page = await this.ask("page", { ...view, count: PAGE, columns: this.width() });
		if (this.tab !== "rows" || this.output !== output) return;
		if (page.error) return this.tell(page.error, true);
		Object.assign(this, { view, page });
		this.paint();
	}

	paint() {
		const { page, view } = this;
		const { first, total, all } = page;
		this.range.textContent = page.rows.length ? `rows ${span(first, page.rows.length, total)}` : "no rows";
		this.window.textContent = `columns ${span(view.column, page.columns.length, all)}`;
		this.columnBar.hidden = page.columns.length === all;
		this.full.hidden = true;
		this.tell(page.note);
		set(this.table, { rowcount: total + 1, colcount: all + 1 });
		const head = page.columns.map(([name, dtype, numeric]) => h(numeric ? "th.number" : "th", {
			scope: "col", role: "columnheader", sort: order(view.sort === name, view.descending),
		}, h("button.sort", { type: "button", tabindex: -1, title: `${name}: ${dtype}. Click to sort.`, onclick: () => this.sortBy(name) },
			h("span.column", name), h("span.dtype", dtype))));
		const rows = page.rows.map((row, r) => h("tr", { role: "row", rowindex: first + r + 2 },
			h("th.index", { scope: "row", role: "rowheader" }, number(page.numbers[r] + 1)), ...row.map((value, c) => this.cell(value, r, c))));
		this.table.replaceChildren(h("thead", h("tr", { role: "row" }, h("th.index", { role: "columnheader" }, "#"), ...head)), h("tbody", ...rows));
		this.mark();
	}

	cell(value, r, c) {
		const numeric = this.page.columns[c][2];
		const missing = value === null || (numeric && value === "NaN");
		return h(`td${numeric ? ".number" : ""}${missing ? ".null" : ""}`, {
			role: "gridcell", title: value && value.length > 24 ? value : null,
			onclick: () => this.mark([r, c]), ondblclick: () => this.whole(),
		}, value === null ? "null" : value);
	}

	sortBy(name) {
		const { sort, descending } = this.view;
		this.turn({ first: 0, sort: sort === name && descending ? "" : name, descending: sort === name && !descending });
	}

	// Put the cursor on a cell of the page.
	mark(at) {
		const { rows, columns } = this.page;
		const [r, c] = (at || this.at).map((n, i) => clamp(n, (i ? columns : rows).length - 1));
		this.at = [r, c];
		const row = this.table.tBodies[0].rows[r];
		const cell = row && row.cells[c + 1];
		if (this.cursor) mark(this.cursor, "active", (this.cursor.id = ""));
		if (!cell) return;
		mark(cell, "active", true);
		this.cursor = cell;
		cell.id = this.panel.kernel.name + "-cell";
		set(this.table, { activedescendant: cell.id });
		if (at) cell.scrollIntoView({ block: "nearest", inline: "nearest" });
	}

	async cellKey(e) {
		const { page, view, at: [r, c] } = this;
		const { key } = e;
		if (!page || e.target !== this.table) return;
		const { rows, columns, first, total, all } = page;
		const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -c], End: [0, columns.length - 1 - c] };
		const acts = {
			PageDown: () => this.turn({ first: first + PAGE }), PageUp: () => this.turn({ first: first - PAGE }),
			Enter: () => this.whole(), "/": () => this.filter.focus(), Escape: () => this.panel.list.focus(),
		};
		if (!(key in moves || key in acts)) return;
		e.preventDefault();
		if (key in acts) return acts[key]();
		const [down, right] = moves[key];
		const row = first + r + down; // in the whole frame, as is column
		const column = view.column + c + right;
		if (e.ctrlKey && !down) {
			await this.turn({ first: key === "Home" ? 0 : Infinity });
			return this.mark([key === "Home" ? 0 : PAGE, c]);
		}
		if (!rows[r + down] && row >= 0 && row < total) await this.turn({ first: first + down * PAGE });
		if (!columns[c + right] && column >= 0 && column < all) await this.turn({ column: right < 0 ? view.column - this.width() : column });
		this.mark([row - this.page.first, column - this.view.column]);
	}

	async whole() {
		const [r, c] = this.at;
		const { error, text } = await this.ask("cell", { row: this.page.numbers[r], column: this.view.column + c });
		this.full.hidden = false;
		say(this.full, error || (text === null ? "null (missing)" : text), error);
		this.full.scrollIntoView({ block: "nearest" });
	}

	// Schema; statistics come one by one, some before the columns themselves

	async schema(first = 0, work = this.working === this.output) {
		const reply = await this.fetch("schema", { first, statistics: work });
		if (!reply) return;
		if (!work && reply.rows <= 5e6) work = true, this.ask("schema", { first, statistics: true }, "work");
		if (work) this.working = this.output;
		this.cells = new Map();
		const rows = reply.columns.map(([at, name, dtype, nulls, told]) => {
			const cells = Array.from({ length: 5 }, () => h("td"));
			this.cells.set(at, { cells, nulls, rows: reply.rows });
			this.describe(at, told || this.told.get(`${this.output.file} ${at}`));
			return h("tr", h("th", { scope: "row" }, name), h("td.dtype", dtype), ...cells);
		});
		const count = reply.columns.length;
		this.body.replaceChildren(h("div.bar", !work && button("Work out statistics", () => this.schema(first, true)),
			h("span.dim", `${number(reply.rows)} rows, columns ${span(first, count, reply.all)}`),
			first && icon("‹", "Columns before", () => this.schema(Math.max(0, first - 100))),
			first + count < reply.all && icon("›", "Columns after", () => this.schema(first + count))),
		h("div.scroll", h("table.table", h("thead", h("tr", ...["Column", "Type", "Missing", "Minimum", "Maximum", "Distinct", "Distribution"]
			.map((title) => h("th", { scope: "col" }, title)))), h("tbody", ...rows))));
	}

	describe(at, told) {
		const { cells, nulls, rows } = this.cells.get(at);
		const n = told ? told.missing : nulls;
		cells[0].textContent = n === null ? "…" : n ? `${number(n)} (${((100 * n) / rows).toFixed(n / rows < 0.1 ? 1 : 0)} %)` : "0";
		if (!told) return;
		[told.minimum, told.maximum].forEach((text, i) => (cells[i + 1].textContent = cells[i + 1].title = text || ""));
		cells[3].textContent = told.distinct === null ? "" : (told.exact ? "" : "≈ ") + number(told.distinct);
		const most = Math.max(...told.histogram, 1);
		const words = told.labels.map((label, i) => `${label}: ${number(told.histogram[i])}`).join("\n");
		const bars = h("span.bars", { role: "img", title: words, label: words || `histogram: ${told.histogram}` }, ...told.histogram.map(() => h("i")));
		told.histogram.forEach((count, i) => (bars.children[i].style.height = `${count && Math.max(6, (100 * count) / most)}%`));
		cells[4].replaceChildren(bars);
	}

	statistics({ key, file, column, statistics }) {
		if (this.key !== key) return;
		this.told.set(`${file} ${column}`, statistics);
		if (this.tab === "schema" && this.output.file === file && this.cells && this.cells.has(column)) this.describe(column, statistics);
	}

	// Value, figures, provenance, files: the kernel says which blocks

	async document(op) {
		const reply = await this.fetch(op);
		if (reply) this.body.replaceChildren(h("div.columns", ...reply.columns.map((blocks) => h("div", ...blocks.map((block) => this.block(block))))));
	}

	block({ kind, title, rows, pieces, url, text, codes }) {
		if (rows) return h("div", h("h4", title), h(`table.table.${kind}`, h("tbody", ...rows.map((row) => h("tr", ...row.map((v, i) => h(i || kind === "grid" ? "td" : "th", v)))))));
		if (kind === "code") return h("pre.code", ...pieces.map(([color, piece]) => h(color ? "span." + color : "span", piece)));
		if (kind === "link") return h("a.link", { href: /^https?:/.test(url) ? url : null, target: "_blank", rel: "noopener noreferrer" }, text);
		if (kind === "picture") return h("img.picture", { alt: text, src: url });
		return kind === "check" ? this.checker(text) : this.snippets(codes);
	}

	checker(folder) {
		const result = h("span.line", { role: "status" });
		const check = async () => {
			say(result, "reading…");
			const told = await this.ask("check");
			say(result, told.error || told.what, !told.good);
		};
		return h("div.bar", h("span.where", { title: folder }, folder), button("Check every byte", check), result);
	}

	snippets(codes) {
		const code = h("pre.code");
		const pick = (kind) => {
			code.textContent = codes[kind];
			for (const node of choice) set(node, { pressed: node.textContent === kind });
		};
		const choice = Object.keys(codes).map((kind) => button(kind, () => pick(kind), {}, "chip"));
		const copy = () => {
			getSelection().selectAllChildren(code);
			this.panel.say(document.execCommand("copy") ? "Copied." : "Press Ctrl+C to copy."); // navigator.clipboard needs https
		};
		pick(Object.keys(codes)[0]);
		return h("div", h("div.bar", ...choice, button("Copy", copy)), code);
	}

	load() {
		const name = h("input.input", { value: this.output.name, label: "Variable", onkeydown: (e) => e.key === "Enter" && go() });
		const go = async (overwrite) => {
			const reply = await this.ask("load", { variable: name.value, overwrite: overwrite === true });
			if (reply.exists) return ask(this.bar, [`${reply.exists} exists already (${reply.what}).`, button(`Replace ${reply.exists}`, () => go(true), {}, "button.danger")]);
			this.bar.hidden = !reply.error;
			this.panel.told(reply);
		};
		ask(this.bar, ["Load into the variable", name, button("Load", go)]);
		name.select();
	}

	export() {
		const write = async (format) => {
			this.bar.hidden = true;
			this.panel.told(await this.ask("export", { format }));
		};
		ask(this.bar, ["Write to the working folder as", button("Parquet", () => write("parquet")), button("CSV", () => write("csv"))]);
	}
}

export default {
	render({ model, el }) {
		const panel = new Panel(model, el);
		return () => panel.close();
	},
};
