"""Masklets in the formats of others: SA-V JSON, DAVIS PNG, COCO, YouTube-VIS, YOLO. A format's reader and writer stand together.

`sources.open_masks` finds out what is at a place and reads it, `exporting` turns our tables into any format, `importing` turns
what others wrote into our tables.
"""
