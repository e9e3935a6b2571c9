// The explorer: what its form chooses of the states that the build has made (gallery/states.js) is shown.
"use strict";

(() => {
  const entries = window.explorerEntries;
  const element = (name) => document.getElementById(`explorer-${name}`);
  const effect = element("effect");
  const picture = element("picture");
  const outlined = element("outlined");
  const sliders = [element("slider-0"), element("slider-1")];
  const chosen = () => entries.find((entry) => entry.name === effect.value);

  function showEffect() {
    const entry = chosen();
    element("says").textContent = entry.says.replaceAll("`", "");
    sliders.forEach((slider, place) => {
      const own = entry.sliders[place];
      slider.parentElement.hidden = !own;
      slider.value = 0;
      if (!own) return;
      slider.max = own.values.length - 1;
      // Of a setting that has a middle, it: at an end there is little to see, or too much.
      slider.value = own.setting === "record" || own.values.length < 4 ? 0 : Math.floor(own.values.length / 2);
      slider.parentElement.querySelector("label").textContent = own.setting;
    });
    element("load").textContent = entry.load;
    element("outlines").hidden = !entry.states[0].outlined;
    for (const state of entry.states) new Image().src = `gallery/${state.file}`;
    showState();
  }

  function showState() {
    const entry = chosen();
    let place = 0;
    entry.sliders.forEach((own, each) => {
      const value = own.values[sliders[each].value];
      place = place * own.values.length + Number(sliders[each].value);
      sliders[each].setAttribute("aria-valuetext", value);
      sliders[each].parentElement.querySelector("output").textContent = value.replace(`${own.setting}=`, "").replace("record ", "");
    });
    const state = entry.states[place];
    const outline = outlined.checked && state.outlined;
    picture.src = `gallery/${outline ? state.outlined : state.file}`;
    picture.alt = outline ? `${state.alt} What is covered is outlined.` : state.alt;
    element("python").textContent = entry.chains[state.chain].python;
    element("yaml").textContent = entry.chains[state.chain].yaml;
  }

  const asked = new URLSearchParams(location.search).get("effect");
  if (entries.some((entry) => entry.name === asked)) effect.value = asked;
  effect.addEventListener("change", showEffect);
  for (const input of [...sliders, outlined]) input.addEventListener("input", showState);
  showEffect();
})();
