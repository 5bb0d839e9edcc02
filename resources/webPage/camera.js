// The camera: a viewfinder in the page, or the phone's own.

import { $, say } from "./page.js";

const CAMERA_PROBLEMS = {
  NotAllowedError: "The browser was not allowed to use the camera.",
  NotFoundError: "No camera was found.",
};

/** Make the camera button work; `take(files)` gets the picture, `choose()` opens the phone's own camera. */
export function listenToCamera(take, choose) {
  const touch = matchMedia("(hover: none) and (pointer: coarse)").matches;
  if (touch || !navigator.mediaDevices?.getUserMedia) return choose();
  const dialog = $("#viewfinder");
  const video = $("video", dialog);
  const shutter = $("#shutter");

  $("#camera").onclick = async () => {
    say($("#camera-problem"), "");
    shutter.disabled = true;
    dialog.showModal();
    const wanted = { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } };
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
      if (!dialog.open) return stop(stream); // closed while the browser was asking
      video.srcObject = stream;
      await video.play();
      shutter.disabled = false;
      shutter.focus();
    } catch (error) {
      if (dialog.open) say($("#camera-problem"), CAMERA_PROBLEMS[error.name] ?? "The camera cannot be used.");
    }
  };
  shutter.onclick = async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    dialog.close();
    take([new File([blob], `camera ${new Date().toLocaleTimeString()}.jpg`, { type: "image/jpeg" })]);
  };
  $("#camera-close").onclick = () => dialog.close();
  dialog.onclose = () => {
    if (video.srcObject) stop(video.srcObject);
    video.srcObject = null;
  };
}

function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}
