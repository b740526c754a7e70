"""Studies: systems x data sets x seeds, run by one command and reported on one page. Behind ``retina_benchmark``.

``study_file`` reads the file into a ``definition``, ``checks`` looks at what it names, ``runs`` defines each run,
``runner`` starts them, ``worker`` carries one out. In ``findings``, ``result_files`` reads what they found, ``tables``
and ``statistics`` compute with it and ``page`` reports it. ``command`` is the way from the file to the page.
"""
