// The viewer as a page of its own: what Jupyter does for a notebook, by requests to the script that serves it.

// The key comes after # in the address, which browsers send to nobody; a reload finds it in the tab's memory.
function findKey() {
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem("key", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("key") ?? "";
}

class Page {
  key = findKey();
  page = "";
  state = {};
  handlers = [];
  queue = Promise.resolve(); // actions are done one by one, in order
  wanted = []; // images whose thumbnails are missing
  fetching = 0;
  isClosed = false;

  get(name) { return name === "state" ? this.state : undefined; }
  on(event, handler) { this.handlers.push([event, handler]); }
  off(event, handler) { this.handlers = this.handlers.filter(([name, each]) => name !== event || each !== handler); }
  tell(event, ...given) { for (const [name, handler] of [...this.handlers]) if (name === event) handler(...given); }

  async ask(path, body) {
    const answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST", body, headers: { authorization: `Bearer ${this.key}` },
    });
    if (answer.ok) return answer;
    const { detail } = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(detail ?? answer.statusText), { status: answer.status });
  }

  async open() {
    ({ page: this.page, state: this.state } = await (await this.ask("pages", "")).json());
  }

  // Images have numbers that only the viewer of this page knows. So once that is gone, such as after the script was
  // started again, nothing more is sent: it would be about other images.
  async askPage(path, body) {
    if (this.isClosed) return null;
    try {
      return await this.ask(`pages/${this.page}/${path}`, body);
    } catch (error) {
      if (error.status !== 410) throw error;
      this.isClosed = true;
      problem(error);
      return null;
    }
  }

  send(action) {
    if (action.do === "thumbnails") return this.wantThumbnails(action.images);
    if (action.do === "look") return this.look(action.image);
    this.queue = this.queue.then(() => this.act(action)).catch(problem);
  }

  async act(action) {
    const answer = await this.askPage("act", JSON.stringify(action));
    if (!answer) return;
    this.state = await answer.json();
    notice("");
    this.tell("change:state");
  }

  wantThumbnails(images) {
    this.wanted = [...images];
    while (this.fetching < 6 && this.wanted.length) this.fetchThumbnails();
  }

  async fetchThumbnails() {
    this.fetching += 1;
    for (let image; (image = this.wanted.shift()) !== undefined;) {
      try {
        const answer = await this.askPage(`thumbnail/${image}`);
        if (answer) this.tell("msg:custom", { thumbnail: image }, [await answer.arrayBuffer()]);
      } catch (error) {
        if (error.status === 422) this.tell("msg:custom", { thumbnail: image, problem: error.message }, []);
        else problem(error);
      }
    }
    this.fetching -= 1;
  }

  async look(image) {
    try {
      const answer = await this.askPage(`large/${image}`);
      if (!answer) return;
      const { message, pictures } = await answer.json();
      this.tell("msg:custom", message, pictures.map(each => Uint8Array.from(atob(each), c => c.charCodeAt(0))));
    } catch (error) {
      problem(error);
    }
  }
}

function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  place.hidden = !text;
}

function problem(error) {
  const { message } = error;
  notice(error.status ? `${message[0].toUpperCase()}${message.slice(1)}.` : "The script does not answer. Is it still running?");
}

const page = new Page();
const ask = document.getElementById("ask");

async function start() {
  try {
    await page.open();
  } catch (error) {
    ask.hidden = error.status !== 401;
    document.getElementById("key").focus();
    return problem(error);
  }
  ask.hidden = true;
  notice("");
  render({ model: page, el: document.getElementById("images") });
  document.querySelector(".grid").focus();
}

ask.addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("key", page.key = document.getElementById("key").value.trim());
  start();
});
start();
