// Asks which models the reader may use: the page itself waits for no upstream.
"use strict";
(() => {
  const { callPath, placeholder } = document.getElementById("connect").dataset;

  function offer(names) {
    const options = names.map((name) => {
      const option = document.createElement("option");
      option.value = name;
      return option;
    });
    document.getElementById("models")?.replaceChildren(...options);
  }
  // As choose_model does it where models are known.
  function fillIn(names) {
    const model = names.find((name) => /^[A-Za-z0-9_./:@+-]{1,200}$/.test(name));
    if (!model) return;
    const pattern = new RegExp(`\\b${placeholder}\\b`, "g");
    for (const code of document.querySelectorAll(".client code")) code.textContent = code.textContent.replace(pattern, () => model);
    const field = document.getElementById("model");
    if (field?.value === placeholder) field.value = model;
  }

  async function load() {
    const response = await fetch(`${callPath}/v1/models`, { headers: { "X-CSRF-Token": page.csrfToken() }, cache: "no-store" });
    if (!response.ok) return; // the placeholder stays
    const names = (await response.json()).data.map((model) => model.id);
    offer(names);
    fillIn(names);
  }
  load();
})();
