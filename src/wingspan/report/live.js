const SHOWN_SECONDS = 300;
const KEPT_EVENTS = 200;
const figureNumbers = [0, 1, 2, 3, 4, 5, 6, 7];
const [TOKENS, QUEUE, FIRST, PER_TOKEN, RANKS, LINKS, EXPERTS, LOADS] =
  figureNumbers.map((number) => figures[`figure-${number}`]);
const OVER_TIME = [TOKENS, QUEUE, FIRST, PER_TOKEN];
const tiles = Object.fromEntries(
  [...document.querySelectorAll(".tile")].map((tile) => [tile.querySelector("span").textContent, tile]),
);
const sections = figureNumbers.map((number) => document.getElementById(`figure-${number}`).parentElement);
let samples = [];
let events = [];
let served = null;

function show(state, words) {
  const output = document.getElementById("state");
  output.dataset.state = state;
  output.textContent = words;
}

function tile(name, value, remark = "") {
  tiles[name].querySelector("strong").textContent = value;
  tiles[name].querySelector("small").textContent = remark;
}

/** As plotly takes a moment to show the reader's own time. */
function moment(seconds) {
  const date = new Date(seconds * 1000);
  return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, -1);
}

function percentiles(name, values) {
  if (values === null) tile(name, "-", "no answer in the last minute");
  else tile(name, time(values[0]), `p90 ${time(values[1])}, p99 ${time(values[2])}`);
}

function fillTiles() {
  const newest = samples.at(-1);
  if (!newest) return;
  const prompts = `${digits(newest.prompt_tokens_per_second)} prompt tokens/s`;
  tile("New tokens", `${digits(newest.tokens_per_second)} /s`, prompts);
  tile("Running", newest.running.toLocaleString("en"), `of ${count(served.slots, "place")}`);
  tile("Waiting", newest.waiting.toLocaleString("en"), "for a place");
  percentiles("Time to first token", newest.ttft_seconds);
  percentiles("Time per output token", newest.tpot_seconds);
}

/** The lines over the last minutes, and a mark on each for everything that happened in them. */
function fillLines() {
  const last = samples.at(-1)?.time_seconds ?? Date.now() / 1000;
  const recent = samples.filter((sample) => sample.time_seconds >= last - SHOWN_SECONDS);
  const from = Math.min(recent[0]?.time_seconds ?? last, last - 60);
  const x = recent.map((sample) => moment(sample.time_seconds));
  const lines = [
    [(sample) => sample.tokens_per_second],
    [(sample) => sample.running, (sample) => sample.waiting],
    [0, 1, 2].map((place) => (sample) => sample.ttft_seconds?.[place] ?? null),
    [0, 1, 2].map((place) => (sample) => sample.tpot_seconds?.[place] ?? null),
  ];
  const marks = events.filter((event) => event.kind !== "decision" && event.time_seconds >= from);
  for (const [number, figure] of OVER_TIME.entries()) {
    for (const [place, value] of lines[number].entries()) {
      Object.assign(figure.data[place], { x, y: recent.map(value) });
    }
    Object.assign(figure.data.at(-1), {
      x: marks.map((event) => moment(event.time_seconds)),
      y: marks.map(() => 1),
      text: marks.map((event) => wrapped(event.text)),
    });
    figure.layout.shapes = marks.map((event) => ({
      type: "line", yref: "paper", y0: 0, y1: 1, x0: moment(event.time_seconds), x1: moment(event.time_seconds),
      line: { color: "var(--limit)", width: 1.5, dash: "dash" },
    }));
    figure.layout.xaxis.range = [moment(from), moment(last)];
    // Room for whole numbers, where there are few of them.
    if (number < 2) {
      const most = Math.max(...figure.data.slice(0, -1).flatMap((line) => line.y));
      figure.layout.yaxis.range = [0, Math.max(5, 1.08 * most)];
    }
  }
}

/** Lines that fit beside the pointer. */
const wrapped = (text) => text.replace(/(.{1,60})( |$)/g, "$1<br>").replace(/<br>$/, "");

function fillRanks(ranks) {
  const names = served.names;
  const heights = Math.max(220, 60 + Math.min(24, 1600 / served.ranks) * served.ranks);
  for (const trace of RANKS.data) {
    const spent = ranks.spent_seconds[trace.name.replace(" ", "_")] ?? [];
    Object.assign(trace, { y: spent.length ? names : [], x: spent.map((seconds) => seconds / ranks.steps) });
  }
  for (const button of document.querySelectorAll("[data-figure=figure-4]")) {
    button.hidden = !RANKS.data[button.dataset.trace].x.some((seconds) => seconds > 0);
  }
  resize(4, heights);
  // What stays on a rank uses no link.
  const links = ranks.sent_bytes.map((row, from) =>
    row.map((bytes, to) => (from === to ? null : bytes / ranks.seconds)));
  heat(LINKS, links, "%{z:.3s}B/s");
  LINKS.data[0].zmax = Math.max(1, ...links.flat());
  for (const number of [4, 5, 6, 7]) sections[number].hidden = number === 5 && served.ranks === 1;
  relative(EXPERTS, ranks.load_tokens, "tokens");
  relative(LOADS, ranks.rows, "rows");
  const height = Math.min(620, 110 + 22 * ranks.rows.length);
  for (const number of [6, 7]) resize(number, height);
  resize(5, Math.min(560, 130 + 24 * served.ranks));
  tile("Imbalance", ranks.imbalance.toFixed(2), `rows per rank, ${count(ranks.steps, "step")}`);
}

function resize(number, height) {
  figures[`figure-${number}`].layout.height = height;
  document.getElementById(`figure-${number}`).style.height = `${height}px`;
}

function heat(figure, z, said) {
  const cells = figure.data[0];
  cells.z = z;
  cells.x = z[0].map((_, place) => place);
  cells.y = z.map((_, place) => place);
  cells.hovertemplate = cells.hovertemplate.replace(/: .*<extra>/, `: ${said}<extra>`);
}

/** Each cell over its row's mean; the pointer is told the number itself. */
function relative(figure, numbers, unit) {
  const means = numbers.map((row) => row.reduce((sum, value) => sum + value, 0) / row.length || 1);
  heat(figure, numbers.map((row, place) => row.map((value) => value / means[place])), `%{customdata:,} ${unit}`);
  figure.data[0].customdata = numbers;
  figure.data[0].zmax = Math.max(2, ...figure.data[0].z.flat());
}

function fillEvents() {
  const items = events.toReversed().map((event) => {
    const item = document.createElement("li");
    const when = document.createElement("time");
    when.textContent = new Date(event.time_seconds * 1000).toLocaleTimeString("en-GB");
    item.append(when, event.text);
    return item;
  });
  if (items.length) document.getElementById("events").replaceChildren(...items);
}

function begin(body) {
  served = body.served;
  for (const number of [0, 1, 2, 3]) sections[number].hidden = false;
  served.names = Array.from({ length: served.ranks }, (_, rank) => `rank ${rank}`);
  [samples, events] = [[], []];
  document.title = `${served.model} - Wingspan`;
  document.getElementById("model").textContent = served.model;
  const nodes = served.ranks / served.ranks_per_node;
  const since = new Date(served.since_seconds * 1000).toLocaleString("en-GB");
  document.getElementById("served").textContent =
    `${count(served.ranks, "rank")} on ${count(nodes, "node")}, since ${since}`;
}

function take(body) {
  if (body.served) begin(body);
  samples.push(...body.samples);
  samples = samples.slice(-2 * SHOWN_SECONDS);
  events.push(...body.events);
  events = events.slice(-KEPT_EVENTS);
  if (body.ranks) fillRanks(body.ranks);
  fillTiles();
  if (body.events.length) fillEvents();
  const ends = events.some((event) => ["drain", "engine ended"].includes(event.kind));
  if (ends) show("ends", "ending");
  else show("live", samples.at(-1)?.running ? "live" : "live, idle");
  drawSoon();
}

let drawn = null;

/** Draw what is newest, and leave the browser four fifths of its time: drawing is slow on a small machine. */
function drawSoon() {
  if (drawn !== null || document.hidden) return;
  drawn = requestAnimationFrame(() => {
    const begun = performance.now();
    fillLines();
    draw();
    setTimeout(() => { drawn = null; }, 4 * (performance.now() - begun));
  });
}

async function follow() {
  for (;;) {
    try {
      const answer = await call("/live");
      if (answer.ok) for await (const body of bodies(answer)) take(body);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    show("away", "no server; trying again");
    await new Promise((later) => setTimeout(later, 2000));
  }
}

// What has nothing to show yet is not shown.
for (const section of sections) section.hidden = true;
follow();
