"use strict";

const place = document.getElementById("status");
const events = new EventSource("events");
events.addEventListener("snapshot", (event) => {
  place.textContent = JSON.stringify(JSON.parse(event.data), null, 2);
});
events.addEventListener("trouble", (event) => {
  place.textContent = event.data;
});
