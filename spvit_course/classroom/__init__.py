"""The classroom: student copies, problem sets, grading, and the pages and programs around them.

copies.py        student copies of the lessons, never written over a student's work
lab.py           the copies in JupyterLab
doctor.py        what this machine lacks, and how long each lesson takes on it
execution.py     runs notebooks and stores their outputs
lint.py          problems of a stored lesson: outputs, exercises, anatomy
links.py         links from lesson to lesson
badges.py        links to Colab and Binder
site.py          the course as web pages
problem_sets.py  the problem sets as data; questions.py and project.py have what a person grades
variants.py      exercises with a different mechanism, for graded work
assignments.py   problem sets assembled as notebooks
validation.py    submissions normalised before they run
proctor.py       watches a submission's kernel, signs receipts
autograding.py   how nbgrader runs a submission
grading.py       release and grade, with nbgrader
gradebook.py     results as lines, CSV and report
"""
