const box = Object.fromEntries(
  ["", "-prompt", "-kind", "-tokens", "-temperature", "-go", "-answer", "-remark"].map(
    (name) => [name.slice(1), document.getElementById(`try${name}`)],
  ),
);
let asking = null;

function remark(text, wrong = false) {
  box.remark.textContent = text;
  box.remark.classList.toggle("wrong", wrong);
}

function request() {
  const common = {
    max_tokens: Number(box.tokens.value), temperature: Number(box.temperature.value),
    stream: true, stream_options: { include_usage: true },
  };
  const prompt = box.prompt.value;
  return box.kind.value === "completions"
    ? { prompt, ...common }
    : { messages: [{ role: "user", content: prompt }], ...common };
}

async function ask() {
  const begun = performance.now();
  const after = () => (performance.now() - begun) / 1000;
  asking = new AbortController();
  box.go.textContent = "Stop";
  box.answer.hidden = false;
  box.answer.replaceChildren();
  if (box.kind.value === "completions") {
    const given = document.createElement("b");
    given.textContent = box.prompt.value;
    box.answer.append(given);
  }
  remark("waiting for the first token");
  let [first, tokens, ended] = [null, null, "stopped"];
  try {
    const answer = await call(`/v1/${box.kind.value}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request()),
      signal: asking.signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for await (const body of bodies(answer)) {
      if (body.error) throw new Error(body.error.message);
      const text = body.choices[0]?.text ?? body.choices[0]?.delta.content ?? "";
      ended = body.choices[0]?.finish_reason ?? ended;
      tokens = body.usage?.completion_tokens ?? tokens;
      if (text && first === null) {
        first = after();
        remark(`first token after ${time(first)}`);
      }
      const follows = box.answer.scrollTop + box.answer.clientHeight >= box.answer.scrollHeight - 4;
      box.answer.append(text);
      if (follows) box.answer.scrollTop = box.answer.scrollHeight;
    }
    const rate = tokens > 1 && first !== null ? `, ${digits((tokens - 1) / (after() - first))} /s after it` : "";
    remark(`${count(tokens, "token")} in ${time(after())}; the first after ${time(first ?? after())}${rate}; ${ended}`);
  } catch (error) {
    if (asking.signal.aborted) remark(`stopped after ${time(after())}`);
    else remark(error.message, true);
  } finally {
    asking = null;
    box.go.textContent = "Send";
  }
}

box[""].addEventListener("submit", (event) => {
  event.preventDefault();
  if (asking === null) ask();
  else asking.abort();
});
box.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) box[""].requestSubmit();
});
