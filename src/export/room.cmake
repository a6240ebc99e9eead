# The script that drives executorch's exporter is part of the program.
set(script ${CMAKE_SOURCE_DIR}/python/temper_executorch.py)
file(READ ${script} TEMPER_EXECUTORCH_SCRIPT)
configure_file(${source_dir}/executorch_script.h.in ${CMAKE_BINARY_DIR}/generated/export/executorch_script.h @ONLY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${script})
target_include_directories(temper_export PRIVATE ${CMAKE_BINARY_DIR}/generated)
