"use strict";
// Filter, sort, and the view of a single host. Text of hosts is only ever set as textContent.
const table = document.getElementById("t");
const body = table.tBodies[0];
const rows = [...body.rows];
const dialog = document.getElementById("host");

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}
const data = unpack().catch(() => null);

function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function grid(head, lines) {
  const box = element("div", null, "scroll");
  const node = box.appendChild(element("table"));
  if (head) {
    const top = node.createTHead().insertRow();
    for (const title of head) top.append(Object.assign(element("th", title), {scope: "col"}));
  }
  const inner = node.createTBody();
  for (const line of lines) {
    const row = inner.insertRow();
    for (const cell of line) row.append(cell instanceof Node ? cell : element("td", cell));
  }
  return box;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < 4) { bytes /= 1024; unit += 1; }
  return bytes.toFixed(unit ? 1 : 0) + " " + units[unit];
}

const partNames = {cpus: "CPUs", dimms: "memory modules", gpus: "GPUs on the PCI bus", links: "network interfaces",
  kernel_modules: "kernel modules"};

function describe(name, thing) {
  if (name === "memory" || name === "swap") return size(thing);
  if (name === "disks") return thing.map(([bytes, count]) => count + " x " + size(bytes)).join(", ") || "none";
  if (name === "links") return thing.map(([speed, count]) => count + " x " + speed + " Mbit/s").join(", ") || "none";
  if (name === "firmware") return Object.entries(thing).map(pair => pair.join(" ")).join(", ");
  return Array.isArray(thing) ? thing.join(", ") : String(thing);
}

function span(seconds) {
  if (seconds < 1) return "this run";
  if (seconds < 2 * 86400) return (seconds / 3600).toFixed(1) + " hours ago";
  return (seconds / 86400).toFixed(1) + " days ago";
}

function status(all, name) {
  const cell = element("td");
  cell.append(element("span", (all.marks[name] || "?") + " " + (all.labels[name] || name), "s " + name));
  return cell;
}

const value = (number, unit) => number === undefined || number === null ? "–" : number + (unit || "");

async function show(index) {
  const all = await data;
  if (!all || !all.hosts[index]) return;
  const host = all.hosts[index];
  const close = element("button", "Close", "close");
  close.onclick = () => dialog.close();
  const title = Object.assign(element("h2", host.host), {id: "host-name"});
  const parts = [close, title];
  const facts = [host.hostname, "score " + value(host.score), host.groups.join(", "),
    ...Object.entries(host.software).map(([name, version]) => name + " " + version),
    host.action === "none" ? "" : "recommended: " + host.action, ...host.notes];
  parts.push(element("p", facts.filter(Boolean).join(" · "), "soft"));
  parts.push(grid(["Phase", "State", "Seconds", "Result"], host.phases.map(
    ([phase, state, message, seconds]) => [phase, status(all, state), seconds === null ? "–" : seconds.toFixed(1), message])));
  const hardware = Object.entries(host.hardware).map(([name, thing]) => [partNames[name] || name, describe(name, thing)]);
  if (hardware.length) {
    parts.push(element("h3", "Hardware"));
    parts.push(grid(null, hardware));
  }
  if (host.devices.length) {
    parts.push(element("h3", "GPUs"));
    parts.push(grid(["GPU", "Model", "State", "°C", "Margin", "Memory MiB", "Power W", "Uncorrected", "Corrected", "VBIOS"],
      host.devices.map(gpu => [value(gpu.id), value(gpu.model), gpu.status ? status(all, gpu.status) : "–", value(gpu.temp),
        value(gpu.margin), value(gpu.mem_used) + " of " + value(gpu.mem_total), value(gpu.power_draw) + " of " + value(gpu.power_limit),
        value(gpu.uncorrected), value(gpu.corrected), value(gpu.vbios)])));
  }
  if (host.disks.length) {
    parts.push(element("h3", "Disks"));
    parts.push(grid(["File system", "Free", "Used"], host.disks.map(disk => [disk.mount, size(disk.free), disk.used + " %"])));
  }
  if (host.backup.path || host.exposed !== null) {
    parts.push(element("h3", "Backup"));
    const facts = [["Last known good", host.exposed === null ? "never" : span(host.exposed)],
      ["Verified copies", host.places.join(", ") || "none"], ["3-2-1", host.safe ? "yes" : "no"], ["Last restore proof", host.proof]];
    if (host.backup.path) {
      facts.unshift(["Newest backup", host.backup.path], ["Size", size(host.backup.size || 0)], ["Made", value(host.backup.created)],
        ["Read back", host.backup.verified ? "yes" : "no"]);
    }
    for (const copy of host.copies) facts.push(["Copy", copy.url + " (" + copy.verified + ")"]);
    parts.push(grid(null, facts));
  }
  if (host.removed.length) {
    parts.push(element("h3", "Cleanup: " + size(host.freed) + " freed"));
    parts.push(grid(["Largest removed", "Size"], host.removed.map(unit => [unit.path, size(unit.size)])));
  }
  if (host.checks.length) {
    parts.push(element("h3", "Checks"));
    parts.push(grid(["Phase", "Check", "Subject", "State", "Message"], host.checks.map(row => {
      const cells = row.map(number => all.texts[number]);
      return [cells[0], cells[1], cells[2], status(all, cells[3]), cells[4]];
    })));
  }
  dialog.replaceChildren(...parts);
  if (!dialog.open) dialog.showModal();
}

function openFromAddress() {
  const match = /^#h(\d+)$/.exec(location.hash);
  if (match) show(Number(match[1]));
  const target = location.hash.startsWith("#runbook-") && document.getElementById(location.hash.slice(1));
  if (target) target.open = true;
}
// On paper the hosts of each cause are listed.
addEventListener("beforeprint", () => document.querySelectorAll(".causes details").forEach(part => part.open = true));
addEventListener("hashchange", openFromAddress);
dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));

const fields = ["text", "state", "group", "phase"].map(name => document.getElementById("f-" + name));
const heads = [...table.tHead.rows[0].cells];
const phaseColumns = new Map([...(fields[3] || {options: []}).options].slice(1).map((option, i) => [option.value, i + 3]));

async function filter() {
  const [text, state, group, phase] = fields.map(field => field ? field.value : "");
  const all = group ? await data : null;
  const wanted = text.trim().toLowerCase();
  let count = 0;
  for (const row of rows) {
    const number = Number(row.id.slice(1));
    const cells = row.cells;
    const keep = (!wanted || row.textContent.toLowerCase().includes(wanted))
      && (!state || cells[1].firstElementChild.classList.contains(state))
      && (!group || !all || all.hosts[number].groups.includes(group))
      && (!phase || Number(cells[phaseColumns.get(phase)].dataset.v) >= 0);
    row.hidden = !keep;
    count += keep;
  }
  document.getElementById("f-count").textContent = count + " of " + rows.length + " hosts";
}

function sort(column, button) {
  const down = button.parentNode.getAttribute("aria-sort") !== "descending";
  for (const head of heads) head.removeAttribute("aria-sort");
  button.parentNode.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => column ? Number(row.cells[column].dataset.v) : row.cells[0].firstChild.textContent;
  const order = new Intl.Collator(undefined, {numeric: true});
  const compare = column ? (a, b) => b[0] - a[0] : (a, b) => order.compare(a[0], b[0]);
  const keyed = rows.map(row => [key(row), row]).sort(compare);
  if (!down) keyed.reverse();
  body.append(...keyed.map(pair => pair[1]));
}

heads.forEach((head, column) => {
  const button = element("button", head.textContent);
  button.type = "button";
  button.onclick = () => sort(column, button);
  head.replaceChildren(button);
});
for (const row of rows) {
  const link = element("a", row.cells[0].firstChild.textContent);
  link.href = "#" + row.id;
  row.cells[0].firstChild.replaceWith(link);
}
for (const field of fields) if (field) field.oninput = filter;
const form = document.querySelector(".filters");
form.hidden = false;
form.onsubmit = event => event.preventDefault();
filter();
openFromAddress();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
