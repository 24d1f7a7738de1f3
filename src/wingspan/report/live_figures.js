// What page.js draws; live.js fills it.
const figures = JSON.parse(document.getElementById("empty-figures").textContent);
