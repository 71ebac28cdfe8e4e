// What the server returns is shown with textContent only, so that text stays text.

const HEALTH_MS = 3000;
const find = (selector, root = document) => root.querySelector(selector);

const make = (tag, text = "", properties = {}) => {
  const element = Object.assign(document.createElement(tag), properties);
  if (text) element.textContent = text;
  return element;
};

const percent = (share) => `${(100 * share).toFixed(1)} %`;

// The server counts code points, strings in JavaScript have UTF-16 units.
const cut = (text, start, end) => {
  const points = Array.from(text);
  return [points.slice(0, start), points.slice(start, end), points.slice(end)].map((part) => part.join(""));
};

// ---- requests

const post = async (path, body, signal) => {
  const begin = performance.now();
  let reply;
  try {
    reply = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server is not reachable.");
  }
  const value = await reply.json().catch(() => ({ error: `The server answered ${reply.status}.` }));
  if (!reply.ok) throw new Error(value.error);
  return { value, ms: performance.now() - begin };
};

// ---- results: data-state is empty, busy, done, none or error

const show = (form, state, headline, facts = "") => {
  const result = find(".result", form);
  result.dataset.state = state;
  find(".headline", result).textContent = headline;
  find(".facts", result).textContent = facts;
  find(".details", result).hidden = !(state === "done" || state === "none");
};

const shareCell = (share) => {
  const cell = make("td");
  const box = cell.appendChild(make("div", "", { className: "share" }));
  box.append(make("span", percent(share)));
  const bar = box.appendChild(make("div", "", { className: "bar", ariaHidden: "true" }));
  bar.appendChild(make("span")).style.inlineSize = `${100 * share}%`;
  return cell;
};

const row = (first, share) => {
  const line = make("tr");
  line.appendChild(make("td")).append(first);
  line.append(shareCell(share));
  return line;
};

const markSpan = (context, span) => {
  const passage = find("#passage");
  passage.replaceChildren(context);
  if (span.start === null) return;
  const [before, inside, after] = cut(context, span.start, span.end);
  const mark = make("mark", inside);
  passage.replaceChildren(before, mark, after);
  passage.scrollTop = mark.offsetTop - passage.offsetTop - passage.clientHeight / 2;
};

const spanChoice = (context, span, best) => {
  if (span.start === null) return make("span", "no answer", { className: "nothing" });
  const button = make("button", span.text, { type: "button", title: "Show in the context" });
  button.ariaPressed = String(span.start === best.start && span.end === best.end);
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("#n-best-rows button")) other.ariaPressed = String(other === button);
    markSpan(context, span);
  });
  return button;
};

const ask = async (form, signal) => {
  const context = find("#context").value;
  const asked = { question: find("#question").value, context, n_best: Number(find("#n-best").value) };
  const { value, ms } = await post("v1/answer", asked, signal);
  const facts = `${percent(value.probability)} probable, ${ms.toFixed(0)} ms`;
  find("#n-best-rows").replaceChildren(
    ...value.nbest.map((span) => row(spanChoice(context, span, value), span.probability)),
  );
  if (value.start === null) show(form, "none", "The context does not answer this.", facts);
  else show(form, "done", value.answer, facts);
  markSpan(context, value);
};

const classify = async (form, signal) => {
  const [text, pair] = [...form.querySelectorAll("textarea")].map((field) => field.value);
  const task = find("select", form);
  if (task && !task.value) throw new Error("This server has no task yet.");
  const asked = { text, ...(pair.trim() && { text_pair: pair }), ...(task && { task: task.value }) };
  const { value, ms } = await post("v1/classify", asked, signal);
  find("tbody", form).replaceChildren(...value.scores.map((score) => row(score.label, score.probability)));
  show(form, "done", value.label, `${percent(value.probability)} probable, ${ms.toFixed(0)} ms`);
};

const compare = async (form, signal) => {
  const asked = ["#left", "#right"].map((name) => ({ text: find(name).value }));
  const { value, ms } = await post("v1/embed", asked, signal);
  const failed = value.find((each) => each.error);
  if (failed) throw new Error(failed.error);
  const [left, right] = value.map((each) => each.embedding);
  const dot = (a, b) => a.reduce((sum, each, index) => sum + each * b[index], 0);
  const cosine = dot(left, right) / Math.sqrt(dot(left, left) * dot(right, right));
  find("#cosine").style.inlineSize = `${100 * Math.max(0, cosine)}%`;
  show(form, "done", cosine.toFixed(3), `cosine of the angle between the embeddings, ${ms.toFixed(0)} ms`);
};

const connect = (form, action) => {
  let running = new AbortController();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running.abort(); // the newest request counts; the server drops the other
    const mine = (running = new AbortController());
    show(form, "busy", "…");
    try {
      await action(form, mine.signal);
    } catch (error) {
      if (mine.signal.aborted) return;
      show(form, "error", error.message);
      checkHealth();
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
};

// ---- health

const showHealth = (state, text, models) => {
  const health = find("#health");
  if (health.dataset.state !== state) health.dataset.state = state;
  if (find("#health-text").textContent !== text) find("#health-text").textContent = text; // unchanged: not read aloud
  if (!models) return;
  for (const form of document.forms) {
    const absent = !(form.dataset.model in models);
    find(".notice", form).hidden = !absent;
    find("fieldset", form).disabled = absent;
  }
};

// Tasks come and go while the server runs. The chosen one stays chosen.
const showTasks = async () => {
  const { tasks } = await (await fetch("v1/tasks", { cache: "no-store" })).json();
  const select = find("#task-name");
  const names = (tasks ?? []).map((task) => task.name);
  if (!tasks || names.join() === [...select.options].map((option) => option.value).join()) return;
  const { value } = select;
  select.replaceChildren(...names.map((name) => make("option", name, { value: name })));
  if (names.includes(value)) select.value = value;
};

const checkHealth = async () => {
  if (document.hidden) return;
  try {
    const { status, models } = await (await fetch("healthz", { cache: "no-store" })).json();
    const names = Object.keys(models).sort().join(", ");
    const known = status === "ok" || names ? models : null; // without any model the server is perhaps starting
    if ("bert_multitask" in models) await showTasks();
    showHealth(status === "ok" ? "ok" : "wrong", status === "ok" ? `ready: ${names}` : status, known);
  } catch {
    showHealth("wrong", "the server is not reachable");
  }
};

// ---- tabs

const tabs = [...document.querySelectorAll("[role=tab]")];

const select = (chosen) => {
  for (const tab of tabs) {
    tab.ariaSelected = String(tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
};

const targets = (index) => ({ ArrowRight: (index + 1) % tabs.length, ArrowLeft: index - 1, Home: 0, End: -1 });

for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", ({ key }) => {
    const next = tabs.at(targets(tabs.indexOf(tab))[key] ?? tabs.indexOf(tab));
    select(next);
    next.focus();
  });
}

connect(find("#answer"), ask);
connect(find("#classify"), classify);
connect(find("#task"), classify);
connect(find("#compare"), compare);
checkHealth();
setInterval(checkHealth, HEALTH_MS);
document.addEventListener("visibilitychange", checkHealth);
