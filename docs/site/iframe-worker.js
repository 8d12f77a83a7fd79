/* Pages opened from a file may not start workers. This stand-in runs a worker's script in a hidden frame instead:
   the script finds itself (`self`), gets messages by "message" events and answers with postMessage. */
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      this.ready = new Promise(loaded => {
        const start = () => {
          document.body.appendChild(frame)
          const inside = frame.contentWindow
          inside.postMessage = data =>
            setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })))
          inside.importScripts = (...urls) => Promise.all(urls.map(each => load(inside, each)))
          load(inside, url).then(() => loaded(inside))
        }
        document.body ? start() : addEventListener("DOMContentLoaded", start)
      })
      this.frame = frame
    }

    postMessage(data) {
      this.ready.then(inside => inside.dispatchEvent(new inside.MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }

function load(inside, url) {
  return new Promise((loaded, failed) => {
    const script = inside.document.createElement("script")
    script.src = url
    script.onload = loaded
    script.onerror = failed
    inside.document.body.appendChild(script)
  })
}
