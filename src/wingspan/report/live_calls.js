/** The key that calls carry: kept in this tab, asked for once a call is refused without it. */
const key = {
  form: document.getElementById("key"),
  remark: document.getElementById("key-remark"),
  get text() { return sessionStorage.getItem("wingspan-key"); },

  /** Resolves once the reader has given one. */
  ask() {
    if (this.text !== null) {
      this.remark.textContent = "That key is not the server's.";
      this.remark.classList.add("wrong");
    }
    this.form.hidden = false;
    return new Promise((given) => {
      this.form.addEventListener("submit", (event) => {
        event.preventDefault();
        const text = document.getElementById("key-text");
        sessionStorage.setItem("wingspan-key", text.value);
        text.value = "";
        this.form.hidden = true;
        given();
      }, { once: true });
    });
  },
};

/** A call of this server, with the key once there is one. */
async function call(path, options = {}) {
  for (;;) {
    const sent = key.text;
    const headers = { ...options.headers, ...(sent === null ? {} : { Authorization: `Bearer ${sent}` }) };
    const answer = await fetch(path, { ...options, headers, cache: "no-store" });
    if (answer.status !== 401) return answer;
    // Another call may have been given one meanwhile.
    if (key.text === sent) await key.ask();
  }
}

/** The bodies of a stream of server-sent events, as they come. */
async function* bodies(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data !== "[DONE]") yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

const digits = (value) => (value >= 99.95 ? Math.round(value).toLocaleString("en") : value.toPrecision(3));

/** A time as a person reads it: three digits and the unit that fits. */
function time(seconds) {
  return seconds >= 0.9995 ? `${digits(seconds)} s` : `${digits(seconds * 1000)} ms`;
}

const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
