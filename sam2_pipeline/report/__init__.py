"""What a dataset is like, for people: `page` is one HTML file of figures and pictures, `card` the figures in Markdown,
`overlay_video` a video with its masklets on it."""
