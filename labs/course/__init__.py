"""The course without torch: syllabus, lab sources, sheets, progress, options, cards, terminal."""
