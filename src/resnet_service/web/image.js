// An image on its card: the preview at once, and the heatmap over the part that the network saw.

import { paint } from "./heat.js";
import { element } from "./results.js";
import { words } from "./translations.js";

export class ImageView {
  #name;
  #image = element("img", "preview");
  #canvas = element("canvas", "heat");
  #frame = element("div", "frame");
  #absent = element("p", "note");
  #legend = element("div", "legend");
  #shown = element("span");
  #little = element("span");
  #ramp = element("span", "ramp");
  #much = element("span");
  #slider = element("input");
  #strength = element("label", "strength");
  #strengthName = element("span");
  #credit;
  #label = null;

  constructor(file, name, credit) {
    this.#name = name;
    this.#credit = credit;
    this.node = element("figure", "image");
    this.#image.src = URL.createObjectURL(file);
    this.#image.addEventListener("load", () => this.#sized());
    // The service may still read what the browser cannot show, or say what is wrong with it.
    this.#image.addEventListener("error", () => {
      this.#frame.hidden = true;
      this.#absent.hidden = false;
      this.node.hidden = !file.type.startsWith("image/");
    });
    this.#canvas.hidden = this.#absent.hidden = this.#legend.hidden = true;
    this.#canvas.setAttribute("aria-hidden", "true");
    Object.assign(this.#slider, { type: "range", min: 0, max: 100, value: 65 });
    this.#slider.addEventListener("input", () => this.#blend());
    this.#strength.append(this.#strengthName, this.#slider);
    this.#ramp.setAttribute("aria-hidden", "true");
    const scale = element("span", "scale");
    scale.append(this.#little, this.#ramp, this.#much);
    this.#legend.append(this.#shown, scale, this.#strength);
    this.#frame.append(this.#image, this.#canvas);
    this.node.append(this.#frame, this.#absent, this.#legend);
    if (credit) this.node.append(element("figcaption", "note"));
    this.render();
  }

  /** Show the texts in the page's language. */
  render() {
    this.#image.alt = words("preview", { name: this.#name() });
    this.#absent.textContent = words("preview.none");
    this.#strengthName.textContent = words("heat.strength");
    this.#much.textContent = words("heat.much");
    this.#little.textContent = words("heat.little");
    if (this.#label) this.#shown.textContent = words("heat.shown", { label: this.#label() });
    if (this.#credit) this.node.querySelector("figcaption").textContent = this.#credit();
  }

  /** Lay the heatmap of an answer of /explain over the image; `label` returns the class's name. */
  show({ map, region, image }, label) {
    this.#label = label;
    const share = (part, whole) => `${(100 * part) / whole}%`;
    this.#canvas.style.left = share(region.left, image.width);
    this.#canvas.style.top = share(region.top, image.height);
    this.#canvas.style.width = share(region.width, image.width);
    this.#canvas.style.height = share(region.height, image.height);
    paint(this.#canvas, map);
    this.#canvas.hidden = this.#legend.hidden = false;
    this.#blend();
    this.render();
  }

  hideMap() {
    this.#canvas.hidden = this.#legend.hidden = true;
    this.#label = null;
  }

  discard() {
    URL.revokeObjectURL(this.#image.src);
  }

  #blend() {
    this.#canvas.style.opacity = this.#slider.value / 100;
  }

  // Small images are enlarged with sharp pixels, not blurred.
  #sized() {
    this.#image.classList.toggle("tiny", this.#image.naturalWidth < 100);
  }
}
