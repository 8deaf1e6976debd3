"""Score each frame of a camera with OpenCV: `opencv_loop.py models/gasket 0`; or of a video file or an rtsp:// URL."""

import sys

import cv2

import energyad

folder, source = sys.argv[1:]
detector = energyad.load(folder)
camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
if not camera.isOpened():
    raise SystemExit(f"{source}: cannot be opened; give a camera's number, a video file or a URL")
number = 0
while True:
    is_read, frame = camera.read()
    if not is_read:
        break
    prediction = detector.score(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))  # OpenCV's frames are BGR
    print(f"{number} {prediction.score:.6g} {prediction.verdict}")
    number += 1
camera.release()
