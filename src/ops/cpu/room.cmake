# Our kernels, compiled once per instruction set into its own namespace; which table is used is decided at run time.
set(kernel_dir ${CMAKE_CURRENT_LIST_DIR}/kernels)
set(kernel_sources ${kernel_dir}/table.cpp ${kernel_dir}/elementwise.cpp ${kernel_dir}/weights.cpp ${kernel_dir}/optimizer.cpp ${kernel_dir}/activation.cpp
    ${kernel_dir}/loss.cpp
    ${kernel_dir}/attention.cpp ${kernel_dir}/attention_rows.cpp ${kernel_dir}/low_rank.cpp ${kernel_dir}/product.cpp)
# A product and a sum may become one rounding here: nothing in these files decides a code.
set(contracted_sources ${kernel_dir}/activation.cpp ${kernel_dir}/loss.cpp ${kernel_dir}/attention.cpp ${kernel_dir}/attention_rows.cpp
    ${kernel_dir}/low_rank.cpp ${kernel_dir}/product.cpp)
set_source_files_properties(${contracted_sources} PROPERTIES COMPILE_OPTIONS -ffp-contract=fast)

function(temper_kernels level)
  set(target temper_ops_cpu_${level})
  add_library(${target} OBJECT ${kernel_sources})
  target_compile_definitions(${target} PRIVATE TEMPER_KERNEL_NS=${level})
  target_compile_options(${target} PRIVATE -O3 ${ARGN})
  target_link_libraries(${target} PRIVATE temper_flags temper_ops)
  target_include_directories(${target} PRIVATE ${CMAKE_BINARY_DIR}/rooms/ops_cpu)
  target_sources(temper_ops_cpu PRIVATE $<TARGET_OBJECTS:${target}>)
endfunction()

temper_kernels(generic)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  temper_kernels(avx2 -march=x86-64-v3)
  temper_kernels(avx512 -march=x86-64-v4 -mprefer-vector-width=512)
  temper_kernels(avx512bf16 -march=x86-64-v4 -mavx512bf16 -mprefer-vector-width=512)
  target_compile_definitions(temper_ops_cpu PRIVATE TEMPER_X86_KERNELS)
endif()
